"""The whole service again, in an empty database, from the stores and the secret key alone."""
