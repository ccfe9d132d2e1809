"""Object stores: ``base`` has the interface, ``connect`` opens a store by its URL, and each provider has a module."""
