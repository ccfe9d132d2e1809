"""Drills: each unit's newest backup restored into a throw-away PostgreSQL, proven, and certified."""
