"""One backup of one clinic, and the checks before a run."""
