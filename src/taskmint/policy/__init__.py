"""YAML text in, decisions out: pure, total, no clock, no I/O."""
