"""
Credentials in, verified SVIDs out, remembered while nothing that they rest on has changed.

A workload presents the same token many times, because SPIRE gives it the same one for minutes,
and the same certificate with each request of a connection. A verdict is kept until the SVID
expires, and dropped, with all others, on any change of the bundles. Refusals are not kept:
whoever sends garbage would choose what is.
"""

from collections.abc import Hashable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Generic, TypeVar

from .believer import Believed
from .jwt_svid import JwtRules, JwtSvid, check_times, verify_jwt_svid
from .x509_svid import X509Svid, check_validity, verify_x509_svid

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """A bounded table from which the half that came first goes when it is full."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._table: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: K) -> V | None:
        return self._table.get(key)

    def put(self, key: K, value: V) -> None:
        if len(self._table) >= self._most:
            self._table = dict(list(self._table.items())[self._most // 2 :])
        self._table[key] = value

    def clear(self) -> None:
        self._table.clear()


class Verdicts:
    """Verifies SVIDs of believed trust domains, each once; `most` of either kind are kept."""

    def __init__(self, rules: JwtRules, most: int = 4096) -> None:
        self._rules = rules
        self._believed = Believed()
        self._tokens: _Kept[bytes, JwtSvid] = _Kept(most)
        self._chains: _Kept[tuple[bytes, ...], X509Svid] = _Kept(most // 4)

    def __len__(self) -> int:
        return len(self._tokens) + len(self._chains)

    def use(self, believed: Believed) -> None:
        """Verify against these from now on; when they are others, forget every verdict."""
        if believed is not self._believed:
            self._believed = believed
            self._tokens.clear()
            self._chains.clear()

    def verify_token(self, token: str, now: float) -> JwtSvid:
        """Verify a JWT-SVID at Unix time `now`. Raises Unproven, as `verify_jwt_svid` does."""
        # One character beyond the limit is enough to be refused and never kept.
        text = token[: self._rules.max_bytes + 1].encode("utf-8", "surrogatepass")
        fingerprint = sha256(text).digest()  # of the signature too: it is what was verified
        kept = self._tokens.get(fingerprint)
        if kept is not None:
            check_times(kept.not_before, kept.expires_at, self._rules, now)
            return kept
        svid = verify_jwt_svid(token, self._believed.jwt, self._rules, now)
        self._tokens.put(fingerprint, svid)
        return svid

    def verify_chain(self, chain: tuple[bytes, ...], now: float) -> X509Svid:
        """Verify an X.509-SVID at Unix time `now`. Raises Unproven, as `verify_x509_svid` does."""
        moment = datetime.fromtimestamp(now, UTC)
        kept = self._chains.get(chain)
        if kept is not None:
            check_validity(kept, moment)
            return kept
        svid = verify_x509_svid(chain, self._believed.x509, moment)
        self._chains.put(chain, svid)
        return svid
