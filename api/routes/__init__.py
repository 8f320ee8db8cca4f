"""The routes, a noun a file: what comes in, what goes out, and who may."""
