"""The mails: rendered from ``include/email`` and sent to the mail server."""
