"""The Prefect flows: a manifest becomes tasks, settled tasks become a delivery."""
