"""Restoring one clinic: planned, then applied exactly as planned, in one transaction that proves itself."""
