"""Bytes to requests, results to JSON, errors to status codes."""
