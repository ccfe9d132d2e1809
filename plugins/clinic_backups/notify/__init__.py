"""The mails: rendered from ``include/email`` and handed to the mail server."""
