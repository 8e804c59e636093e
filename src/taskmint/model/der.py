"""Concatenated DER certificates, as the SPIFFE Workload API sends them, split into each one."""

from typing import Final

MAX_BYTES: Final = 1 << 20
_SEQUENCE: Final = 0x30  # the DER tag that every certificate begins with
_TAG_AND_LENGTH: Final = 2
_LONG_FORM: Final = 0x80


def split_der(text: bytes) -> tuple[bytes, ...]:
    """Split concatenated DER sequences (X.690, section 8.1.3). Raises ValueError."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"certificates have at most {MAX_BYTES} bytes together")
    parts: list[bytes] = []
    while text:
        if len(text) < _TAG_AND_LENGTH or text[0] != _SEQUENCE:
            raise ValueError("not a DER sequence")
        length, start = text[1], _TAG_AND_LENGTH
        if length & _LONG_FORM:
            start += length ^ _LONG_FORM
            length = int.from_bytes(text[2:start])
        end = start + length
        if end > len(text) or start == end:
            raise ValueError("a DER sequence ends early")
        parts.append(text[:end])
        text = text[end:]
    return tuple(parts)
