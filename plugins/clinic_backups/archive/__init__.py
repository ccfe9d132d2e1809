"""The format: blocks, encryption, manifests, chains, and the checks of what comes out of a store."""
