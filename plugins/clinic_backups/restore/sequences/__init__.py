"""Sequences: which columns get numbers from them, and how far they have to move so that the next number is free."""
