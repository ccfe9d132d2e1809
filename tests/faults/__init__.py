"""Random operations of the command under random faults, checked by an oracle that does not use the code under test.

``python -m tests.faults --steps 200 --seed 7``; docs/faults.md describes the operations and the checks.
"""
