"""Proves who is on the other end of the socket; the only builder of a `Caller`."""
