"""The format of archives: blocks, encryption, manifests, chains, and checks of data from a store."""
