"""
Messages of the Workload API in, one immutable picture of whom to believe out.

Each message is the whole truth of its stream (Workload API, section 4.4): what it leaves out is
withdrawn. A bundle that cannot be read is left out too, and named; the others stand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from taskmint.model.spiffe import SpiffeId

from .jwt_bundle import JwtBundles, jwt_authority, parse_jwt_bundle
from .x509_context import (
    OwnSvid,
    X509Bundles,
    parse_own_svid,
    parse_x509_bundle,
    x509_authority,
)

B = TypeVar("B")

_OWN: Final = "own X.509-SVID"


@dataclass(frozen=True, slots=True)
class Trust:
    """
    What the agent last said. Two pictures are the same only when they are the same object.

    Bundles are keyed by trust domain name. `jwt_said` and `x509_said` are the last messages'
    authorities, which outlast a refusal: being refused an identity says nothing about others'.
    """

    jwt: JwtBundles = field(default_factory=dict)
    x509: X509Bundles = field(default_factory=dict)
    own: OwnSvid | None = None
    jwt_said: "Said | None" = None
    x509_said: "Said | None" = None

    @property
    def unreadable(self) -> Mapping[str, str]:
        """What was left out, and why."""
        said = (self.jwt_said, self.x509_said)
        return {name: why for one in said if one for name, why in one.unreadable.items()}

    def stands(self, authority: str) -> bool:
        """
        Whether an SVID's authority has not been withdrawn, as far as it is known.

        Only a message that can be read and does not name it withdraws it: an agent that is away,
        refuses us, or sends a bundle that cannot be read has not said so. Nor has one whose message
        does not tell who we are: the bundle beside that may be any domain's.
        """
        kind, _, name = authority.partition(":")
        said = {"jwt": self.jwt_said, "x509": self.x509_said}.get(kind)
        if said is None or {name.partition("#")[0], _OWN} & said.unreadable.keys():
            return True
        return authority in said.authorities


@dataclass(frozen=True, slots=True)
class Said:
    """One message: the authorities that it names, and the bundles that cannot be read, and why."""

    authorities: frozenset[str]
    unreadable: Mapping[str, str]


def read_jwt_bundles(message: Any) -> tuple[JwtBundles, Said | None]:
    """
    Read a JWTBundlesResponse; what cannot be read is left out.

    Without its mandatory field a message says nothing (Workload API, section 4.5): then nobody is
    believed until one does, and no authority is withdrawn.
    """
    if not message.bundles:
        return {}, None
    bundles, unreadable = _read_each(message.bundles, parse_jwt_bundle)
    named = frozenset(
        jwt_authority(domain, key_id) for domain, bundle in bundles.items() for key_id in bundle
    )
    return bundles, Said(named, unreadable)


def read_x509_context(message: Any) -> tuple[X509Bundles, OwnSvid | None, Said | None]:
    """
    Read an X509SVIDResponse; the first SVID is our own (Workload API, section 5.2.1).

    What is missing or cannot be read is treated as in `read_jwt_bundles`.
    """
    if not message.svids:
        return {}, None, None
    bundles, unreadable = _read_each(message.federated_bundles, parse_x509_bundle)
    first, own = message.svids[0], None
    try:
        own = parse_own_svid(first.spiffe_id, first.x509_svid, first.x509_svid_key)
        domain = own.spiffe_id.trust_domain
    except ValueError as error:
        unreadable = {**unreadable, _OWN: str(error)}
    else:
        local, why_not = _read_each({domain: first.bundle}, parse_x509_bundle)
        bundles, unreadable = {**bundles, **local}, {**unreadable, **why_not}
    named = frozenset(
        x509_authority(domain, certificate)
        for domain, bundle in bundles.items()
        for certificate in bundle
    )
    return MappingProxyType(bundles), own, Said(named, unreadable)


def _read_each(
    texts: Mapping[str, bytes], parse: Callable[[bytes], B]
) -> tuple[Mapping[str, B], Mapping[str, str]]:
    bundles: dict[str, B] = {}
    unreadable: dict[str, str] = {}
    for name, text in texts.items():
        known_as = name
        try:
            known_as = _trust_domain(name)
            bundles[known_as] = parse(text)
        except ValueError as error:
            unreadable[known_as] = str(error)
    return MappingProxyType(bundles), unreadable


def _trust_domain(name: str) -> str:
    """Read a bundle's key: a trust domain's SPIFFE ID, or its bare name as some agents send."""
    spiffe_id = SpiffeId.parse(name if "://" in name else f"spiffe://{name}")
    if spiffe_id.path:
        raise ValueError("a bundle belongs to a trust domain, not to a workload")
    return spiffe_id.trust_domain
