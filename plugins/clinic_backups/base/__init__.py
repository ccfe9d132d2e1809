"""Shared by all other folders: errors, text helpers, the model, settings, connections, the clock."""
