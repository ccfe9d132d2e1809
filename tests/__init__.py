"""The tests."""

ALL = "TESTS_ALL"
"""The variable that runs the tests that are marked as long, too."""
