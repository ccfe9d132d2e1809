"""The demo with Celery: two workers that share no disk, each with its own user, folder, settings and secrets."""
