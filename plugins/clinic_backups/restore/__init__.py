"""Restores one clinic: makes a plan, then applies exactly that plan in one transaction, and proves the result."""
