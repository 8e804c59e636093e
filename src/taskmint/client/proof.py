"""How a request proves who makes it: by a token in it, or by the connection it goes over."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from .mutual_tls import Terms


class Proof(NamedTuple):
    """Exactly one of the two: a JWT-SVID, or the terms of mutual TLS by an X.509-SVID."""

    token: str | None = None
    terms: "Terms | None" = None

    def __repr__(self) -> str:
        return f"Proof({'a JWT-SVID' if self.terms is None else 'an X.509-SVID'})"

    def shows(self, other: "Proof") -> bool:
        """Whether both show the same SVID."""
        if self.terms is None or other.terms is None:
            return self.token is not None and self.token == other.token
        return self.terms.leaf == other.terms.leaf


class ProofSource(Protocol):
    """Where a client takes its proofs from."""

    async def proof(self, *, fresh: bool = False) -> Proof:
        """Return a proof; `fresh` asks the source again. Raises NoIdentity."""
