"""Builds the concrete things in order and takes them down in reverse."""
