"""
Tokens in, verified SVIDs out, remembered while nothing that they rest on has changed.

A workload presents the same token many times, because SPIRE gives it the same one for minutes.
The verdict is kept by the token's SHA-256 until it expires, and dropped, with all others, on any
change of the bundles. Refusals are not kept: whoever sends garbage would choose what is.
"""

from collections.abc import Mapping

from .jwt_bundle import JwtBundle, JwtBundles
from .jwt_svid import JwtRules, JwtSvid, check_times, evidence_of, verify_jwt_svid


class Verdicts:
    """Verifies JWT-SVIDs of believed trust domains, each token once."""

    def __init__(self, rules: JwtRules, most: int = 4096) -> None:
        self._rules = rules
        self._most = most  # verdicts kept, a few hundred bytes each
        self._kept: dict[str, JwtSvid] = {}
        self._bundles: JwtBundles = {}

    def __len__(self) -> int:
        return len(self._kept)

    def use(self, bundles: Mapping[str, JwtBundle]) -> None:
        """Verify against these from now on, forgetting every verdict that rests on others."""
        self._bundles = bundles
        self._kept.clear()

    def verify(self, token: str, now: float) -> JwtSvid:
        """Verify at Unix time `now`. Raises Unproven, as `verify_jwt_svid` does."""
        evidence = evidence_of(token[: self._rules.max_bytes + 1])
        kept = self._kept.get(evidence)
        if kept is not None:
            check_times(kept.not_before, kept.expires_at, self._rules, now)
            return kept
        svid = verify_jwt_svid(token, self._bundles, self._rules, now)
        if len(self._kept) >= self._most:
            self._make_room(now)
        self._kept[evidence] = svid
        return svid

    def _make_room(self, now: float) -> None:
        """Drop what has expired, and otherwise the half that was verified longest ago."""
        self._kept = {key: svid for key, svid in self._kept.items() if svid.expires_at > now}
        if len(self._kept) >= self._most:
            self._kept = dict(list(self._kept.items())[self._most // 2 :])
