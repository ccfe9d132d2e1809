"""Shared by all other folders: errors, text helpers, records, settings, connections, the clock."""
