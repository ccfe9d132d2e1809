"""The same app some months later: what a developer migrates between a backup and its restore."""
