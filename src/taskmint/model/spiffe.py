"""
SPIFFE IDs: text in, a value that cannot be wrong out.

Written from the SPIFFE-ID standard, section 2, rather than on py-spiffe's parser,
which accepts a trailing newline (`re.match` with `$`).
"""

import re
from dataclasses import dataclass
from typing import Final, Self

MAX_BYTES: Final = 2048  # SPIFFE-ID, section 2.3
MAX_TRUST_DOMAIN_BYTES: Final = 255  # SPIFFE-ID, section 2.1

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """
    `spiffe://<trust_domain><path>`; build it with `parse`.

    `path` is empty for a trust domain's own ID and otherwise starts with a slash.
    """

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a SPIFFE ID; scheme and trust domain compare without case and are kept lower-case.

        Raises ValueError with a sentence that is safe to log.
        """
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise ValueError(f"a SPIFFE ID has at most {MAX_BYTES} bytes")
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.lower() != "spiffe":
            raise ValueError("a SPIFFE ID starts with spiffe://")
        authority, slash, tail = rest.partition("/")
        trust_domain = authority.lower()
        if not authority.isascii() or not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise ValueError("a trust domain is made of letters, digits, dot, dash, underscore")
        if len(trust_domain) > MAX_TRUST_DOMAIN_BYTES:
            raise ValueError(f"a trust domain has at most {MAX_TRUST_DOMAIN_BYTES} bytes")
        for segment in tail.split("/") if slash else ():
            if segment in {".", ".."} or not _SEGMENT.fullmatch(segment):
                raise ValueError(
                    "each path segment is one or more of letters, digits, dot, dash, underscore, "
                    "and is neither . nor .."
                )
        return cls(trust_domain, slash + tail)

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's segments; empty for a trust domain's own ID."""
        return tuple(self.path[1:].split("/")) if self.path else ()

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"
