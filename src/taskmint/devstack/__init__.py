"""The embedded stack for development, the demo and the tests: real servers from wheels."""
