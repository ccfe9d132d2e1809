"""Writes the result of a comparison: with quiet triggers, in an order that works, and with a proof."""
