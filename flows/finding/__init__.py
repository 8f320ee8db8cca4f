"""Find the manifests of a stream: which are new, which have jobs already, and which have failed."""
