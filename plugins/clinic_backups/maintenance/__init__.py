"""Work on existing backups: retention, erasures, holds, verification, replicas, rebuilding."""
