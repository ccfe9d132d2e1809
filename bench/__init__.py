"""Benchmarks: ``make bench`` and ``make bench-quick``. Every figure is a ratio to a reference of the same run."""
