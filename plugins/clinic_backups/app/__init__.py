"""Builds the objects of one process from its settings and connections, each when it is first needed."""

from clinic_backups.app.work import Parts, Reading

__all__ = ["Parts", "Reading"]
