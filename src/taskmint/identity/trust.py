"""
Messages of the Workload API in, one immutable picture of whom to believe out.

Each message is the whole truth of its stream (Workload API, section 4.4): what it leaves out is
withdrawn. A bundle that cannot be read is left out too, and named; the others stand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from taskmint.model.spiffe import SpiffeId

from .jwt_bundle import JwtBundles, parse_jwt_bundle
from .x509_context import OwnSvid, X509Bundles, parse_own_svid, parse_x509_bundle

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Trust:
    """
    What the agent last said. Two pictures are the same only when they are the same object.

    Bundles are keyed by trust domain name; `unreadable` names what was left out and why.
    """

    jwt: JwtBundles = field(default_factory=dict)
    x509: X509Bundles = field(default_factory=dict)
    own: OwnSvid | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)


def read_jwt_bundles(message: Any) -> tuple[JwtBundles, Mapping[str, str]]:
    """Read a JWTBundlesResponse; returns what can be read, and why the rest cannot."""
    return _read_each(message.bundles, parse_jwt_bundle)


def read_x509_context(message: Any) -> tuple[X509Bundles, OwnSvid | None, Mapping[str, str]]:
    """Read an X509SVIDResponse; the first SVID is our own (Workload API, section 5.2.1)."""
    bundles, unreadable = _read_each(message.federated_bundles, parse_x509_bundle)
    if not message.svids:
        return bundles, None, unreadable
    first = message.svids[0]
    try:
        own = parse_own_svid(first.spiffe_id, first.x509_svid, first.x509_svid_key)
    except ValueError as error:
        return bundles, None, {**unreadable, "own X.509-SVID": str(error)}
    local, why_not = _read_each({own.spiffe_id.trust_domain: first.bundle}, parse_x509_bundle)
    return MappingProxyType({**bundles, **local}), own, {**unreadable, **why_not}


def _read_each(
    texts: Mapping[str, bytes], parse: Callable[[bytes], B]
) -> tuple[Mapping[str, B], Mapping[str, str]]:
    bundles: dict[str, B] = {}
    unreadable: dict[str, str] = {}
    for name, text in texts.items():
        try:
            bundles[_trust_domain(name)] = parse(text)
        except ValueError as error:
            unreadable[name] = str(error)
    return MappingProxyType(bundles), unreadable


def _trust_domain(name: str) -> str:
    """Read a bundle's key: a trust domain's SPIFFE ID, or its bare name as some agents send."""
    spiffe_id = SpiffeId.parse(name if "://" in name else f"spiffe://{name}")
    if spiffe_id.path:
        raise ValueError("a bundle belongs to a trust domain, not to a workload")
    return spiffe_id.trust_domain
