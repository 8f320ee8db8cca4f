"""Which manifests of a stream there are, which were read before, and which have failed."""
