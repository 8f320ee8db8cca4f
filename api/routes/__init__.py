"""The answers of the HTTP API, a module for each noun. What they decide is in `blocks`."""
