"""
What the development agent knows: the trust domain, the entries, and the SVIDs it hands out again.

Everything that clients can see changes through the methods here, and each change is announced.
"""

import asyncio
from collections.abc import Iterable, Sequence

from .registration import Caller, Entry
from .trust_domain import JwtSvid, TrustDomain, X509Svid


class AgentState:
    """Lives on one event loop; `version` grows with every change."""

    def __init__(self, trust_domain: TrustDomain, entries: Iterable[Entry]) -> None:
        self.trust_domain = trust_domain
        self.version = 0
        self._entries = tuple(entries)
        self._changed = asyncio.Condition()
        self._certificates: dict[str, X509Svid] = {}
        self._tokens: dict[tuple[str, tuple[str, ...]], JwtSvid] = {}

    def entitled(self, caller: Caller | None) -> tuple[Entry, ...]:
        """Return the entries that mean this process now; none for nobody."""
        return () if caller is None else caller.entitled(self._entries)

    def certificate(self, spiffe_id: str) -> X509Svid:
        """Return this entry's certificate, the same one until half its life is over."""
        held = self._certificates.get(spiffe_id)
        if held is None or not self.trust_domain.is_fresh(held):
            held = self._certificates[spiffe_id] = self.trust_domain.mint_x509(spiffe_id)
        return held

    def token(self, spiffe_id: str, audience: Sequence[str]) -> JwtSvid:
        """Return this entry's token for these audiences, the same one until half its life."""
        wanted = (spiffe_id, tuple(audience))
        held = self._tokens.get(wanted)
        if held is None or not self.trust_domain.is_fresh(held):
            held = self._tokens[wanted] = self.trust_domain.mint_jwt(spiffe_id, audience)
        return held

    async def rotate_jwt(self, *, retire: bool) -> None:
        """Sign tokens with a new key; `retire` withdraws the old ones."""
        self.trust_domain.rotate_jwt(retire=retire)
        await self._announce()

    async def rotate_x509(self, *, retire: bool) -> None:
        """Sign certificates with a new authority; `retire` withdraws the old ones."""
        self.trust_domain.rotate_x509(retire=retire)
        await self._announce()

    async def register(self, entry: Entry) -> None:
        """Add an entry."""
        self._entries = (*self._entries, entry)
        await self._announce()

    async def redact(self, spiffe_id: str) -> None:
        """Take away an identity: its processes are told so on every stream."""
        self._entries = tuple(each for each in self._entries if each.spiffe_id != spiffe_id)
        await self._announce()

    async def changed_since(self, version: int, seconds: float) -> None:
        """Wait until `version` is past, or for so long."""
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self.version != version)
            except TimeoutError:
                return

    async def _announce(self) -> None:
        async with self._changed:
            self.version += 1
            self._changed.notify_all()
