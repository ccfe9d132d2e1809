"""Random operations of the command under random faults, and an oracle that does not trust the code under test.

``python -m tests.faults --steps 200 --seed 7``; docs/faults.md says what is done and what is looked at.
"""
