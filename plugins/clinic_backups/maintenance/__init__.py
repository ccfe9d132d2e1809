"""What happens to backups later: retention, erasures, holds, verification, replicas, rebuilding."""
