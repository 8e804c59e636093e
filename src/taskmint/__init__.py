"""Vault credentials that exist only while the task that needs them runs."""
