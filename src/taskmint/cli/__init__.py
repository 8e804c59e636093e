"""Parse argv, call, print."""
