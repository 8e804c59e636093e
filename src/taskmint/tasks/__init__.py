"""The life of a task: start, renew, end, recover. Knows ports, not adapters."""
