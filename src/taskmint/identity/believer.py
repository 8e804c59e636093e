"""
What the agent knows in, what this daemon believes out: the trust domains that the config names.

That the agent federates with a domain is its operator's decision; that the domain's workloads may
come to this daemon is ours. Without any name in the config our own domain is believed alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from .jwt_bundle import JwtBundles
from .trust import Trust
from .workload_api import WorkloadApi
from .x509_context import OwnSvid, X509Bundles

B = TypeVar("B")

_NOBODY: Final = "the Workload API gave no bundle of a trust domain that is believed here"


@dataclass(frozen=True, slots=True)
class Believed:
    """Bundles of believed trust domains; the same object until the agent says otherwise."""

    jwt: JwtBundles = field(default_factory=dict)
    x509: X509Bundles = field(default_factory=dict)
    own: OwnSvid | None = None


class Believer:
    """
    Filters what a Workload API says.

    `trust_domains` are believed, when their bundles are known; none named means our own, which is
    the one of the X.509-SVID that the agent gives us.
    """

    def __init__(self, api: WorkloadApi, trust_domains: frozenset[str] = frozenset()) -> None:
        self._api = api
        self._named = trust_domains
        self._heard = Trust()
        self._believed = Believed()

    def now(self) -> Believed:
        """Return whom to believe now, as far as it is known."""
        trust = self._api.trust
        if trust is not self._heard:
            own = {trust.own.spiffe_id.trust_domain} if trust.own else set()
            names = self._named or own
            self._believed = Believed(
                jwt=_only(names, trust.jwt), x509=_only(names, trust.x509), own=trust.own
            )
            self._heard = trust
        return self._believed

    def believes(self, trust_domain: str) -> bool:
        """Whether callers of this trust domain may come at all."""
        if self._named:
            return trust_domain in self._named
        own = self._api.trust.own
        return own is not None and own.spiffe_id.trust_domain == trust_domain

    def stands(self, authority: str) -> bool:
        """Whether an SVID's authority is still believed, as far as it is known (Trust.stands)."""
        domain = authority.partition(":")[2].partition("#")[0]
        if self._named and domain not in self._named:
            return False
        return self._api.trust.stands(authority)

    async def changed(self, after: int) -> int:
        """Wait until what the agent says has changed since `after`; returns what to wait after."""
        return await self._api.changed(after)

    def ready(self) -> str | None:
        """None when JWT-SVIDs can be verified now, else the reason why not."""
        why_not = self._api.ready()
        return why_not or (None if self.now().jwt else _NOBODY)

    def ready_x509(self) -> str | None:
        """None when X.509-SVIDs can be verified now, else the reason why not."""
        why_not = self._api.ready_x509()
        return why_not or (None if self.now().x509 else _NOBODY)


def _only(names: frozenset[str] | set[str], bundles: Mapping[str, B]) -> Mapping[str, B]:
    return {name: bundle for name, bundle in bundles.items() if name in names}
