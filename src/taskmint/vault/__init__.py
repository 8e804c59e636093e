"""Mints, renews and revokes at Vault or OpenBao; the only importer of hvac."""
