"""Logs and metrics: what operators see. No secrets, no ids in labels."""
