"""
JSON values in, the one canonical form of their bytes out (RFC 8785), and its SHA-256.

Two values that mean the same have the same digest on every machine; nothing here parses.
"""

from hashlib import sha256

import rfc8785

from .model.scope import Json


def canonical(value: Json) -> bytes:
    """
    Return the RFC 8785 form.

    Raises ValueError for what I-JSON cannot hold: NaN, infinity, integers beyond 2^53-1,
    lone surrogates.
    """
    try:
        return rfc8785.dumps(value)
    except UnicodeEncodeError as error:
        raise ValueError("a string holds a lone surrogate, which JSON cannot carry") from error


def digest(value: Json) -> str:
    """Return the SHA-256 (hex, lower-case) of the canonical form. Raises as `canonical` does."""
    return sha256(canonical(value)).hexdigest()
