"""Rows that no extract returns: which of them are the clinic's all the same."""
