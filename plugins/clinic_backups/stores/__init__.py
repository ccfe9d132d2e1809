"""Object stores: ``base`` is the interface, ``connect`` opens one from its URL, one module per provider."""
