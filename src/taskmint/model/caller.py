"""A peer whose SPIFFE ID has been proven."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .peer import Peer
from .spiffe import SpiffeId


class IdentityMethod(StrEnum):
    """The door through which an identity was proven (design.md, section 4)."""

    JWT_SVID = "jwt-svid"
    X509_SVID = "x509-svid"
    DELEGATED = "delegated"


class TokenBinding(StrEnum):
    """To whom an SVID is held fast (decisions.md, trap 19): not what a task is bound to."""

    UID = "uid"  # the same token may come from every process of a user
    PROCESS = "process"  # from one process only


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Built by the identity package and nowhere else; tests/test_architecture.py says so.

    `proven_until` is the SVID's expiry; `evidence` is the SHA-256 (hex) of what its authority
    signed (a token up to its last dot, a certificate's TBSCertificate), which lets an auditor match
    a stolen token to a task without the ledger holding the token. The signature is left out: an
    ECDSA signature can be changed into another good one by whoever has it.
    `authority` names the key or root that vouched, so that its withdrawal ends what rests on it.
    `binding` says whether a token has come from one process only, as far as the kernel can tell.
    """

    spiffe_id: SpiffeId
    method: IdentityMethod
    peer: Peer
    proven_until: datetime
    evidence: str
    authority: str = ""
    binding: TokenBinding = TokenBinding.UID
