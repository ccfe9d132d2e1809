"""One backup of one clinic, and what is checked before a run."""
