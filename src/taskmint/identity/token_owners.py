"""
Which local user, or process, a token belongs to: the first that presented it.

A bearer token is worth what it is to whoever holds it (JWT-SVID, section 7.1). On one node the
kernel says who holds it, so a copy in another user's hands is refused until it expires. By user
and not by process, because SPIRE gives every process of an entry the same token; but whether it
came from one process only is told on, for definitions that ask for that.
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from taskmint.errors import Code, Limit, LimitExceeded, Unproven
from taskmint.model.caller import TokenBinding
from taskmint.model.peer import Peer, PeerProof

from .jwt_svid import JwtSvid, invalid

_SHARE: Final = 4  # of one user: so many users fill the table together, and no fewer
_LOOK_AGAIN: Final = 1.0
_RETRY: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who presented a token first; `process` is pid and start time, None when not firmly known."""

    uid: int
    process: tuple[int, int] | None
    until: int


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """
    What a token is bound to, and for how long (seconds) it is good after it expired.

    With `single_use` a token that carries a `jti` is good for one request: for SPIRE entries that
    mint one token per request (`jwtSVIDIncludeJTI`). `most` tokens are known at once,
    a quarter of them of one user: more than that is refused, for a token that is forgotten while it
    is good could be shown again, or by somebody else.
    """

    binding: TokenBinding = TokenBinding.UID
    leeway: int = 30
    single_use: bool = False
    most: int = 16_384


class TokenOwners:
    """Remembers, until it is good for nothing, who presented each token first."""

    def __init__(self, rules: OwnerRules) -> None:
        self._rules = rules
        self._owners: dict[str, _Owner] = {}
        self._of_user: Counter[int] = Counter()
        self._looked_at = 0.0

    def __len__(self) -> int:
        return len(self._owners)

    def claim(self, svid: JwtSvid, peer: Peer, now: float) -> TokenBinding:
        """
        Let the peer present the token, if it is the token's owner.

        Returns what the token has been held to so far: one process, or one user. Raises Unproven,
        and LimitExceeded when no more tokens can be remembered.
        """
        process = self._process(peer)
        once = self._rules.single_use and svid.jti is not None
        name = f"{svid.authority} {svid.jti}" if once else svid.evidence
        known = self._owners.get(name)
        if known is None:
            self._require_room(peer.uid, now)
            self._owners[name] = _Owner(peer.uid, process, svid.expires_at + self._rules.leeway)
            self._of_user[peer.uid] += 1
            return TokenBinding.UID if process is None else TokenBinding.PROCESS
        if once:
            raise invalid("The token was used before, and is good for one request.")
        if known.uid != peer.uid:
            raise invalid("The token was first presented by another user.")
        if process is not None and known.process == process:
            return TokenBinding.PROCESS
        if self._rules.binding is TokenBinding.PROCESS:
            raise invalid("The token was first presented by another process.")
        # It belongs to the user from now on: who presented it first is not alone any more.
        self._owners[name] = replace(known, process=None)
        return TokenBinding.UID

    def _process(self, peer: Peer) -> tuple[int, int] | None:
        if peer.proof is PeerProof.PIDFD and peer.start_time is not None:
            return (peer.pid, peer.start_time)
        # Without the kernel's own pidfd, another process may have taken the pid over.
        if self._rules.binding is TokenBinding.PROCESS:
            raise Unproven(
                Code.PEER_UNATTESTED,
                "The kernel does not say firmly which process presents this token.",
                fix="run Linux 6.5 or later, or bind tokens by uid",
            )
        return None

    def _require_room(self, uid: int, now: float) -> None:
        """Forget expired tokens when it is full, at most once a second. Raises LimitExceeded."""
        if self._has_room(uid):
            return
        if not 0 <= now - self._looked_at < _LOOK_AGAIN:  # a clock may be set back
            self._looked_at = now
            self._owners = {key: known for key, known in self._owners.items() if known.until > now}
            self._of_user = Counter(known.uid for known in self._owners.values())
        if not self._has_room(uid):
            raise LimitExceeded(
                Limit.TOKENS,
                "Too many tokens are in use that have not expired yet.",
                retry_after=_RETRY,
                fix="show the same token until it expires, or have the server give shorter ones",
            )

    def _has_room(self, uid: int) -> bool:
        most = self._rules.most
        return len(self._owners) < most and self._of_user[uid] < most // _SHARE
