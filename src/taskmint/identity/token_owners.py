"""
Which local user, or process, a token belongs to: the first that presented it.

A bearer token is worth what it is to whoever holds it (JWT-SVID, section 7.1). On one node the
kernel says who holds it, so a copy in another user's hands is refused until it expires. By user
and not by process, because SPIRE gives every process of an entry the same token.
"""

from dataclasses import dataclass
from enum import StrEnum

from taskmint.errors import Code, Unproven
from taskmint.model.peer import Peer, PeerProof

from .jwt_svid import JwtSvid, invalid

_Owner = tuple[int, ...]


class TokenBinding(StrEnum):
    """`identity.token`: what a token is bound to."""

    UID = "uid"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """
    What a token is bound to, and for how long (seconds) it is good after it expired.

    With `single_use` a token that carries a `jti` is good for one request: for SPIRE entries that
    mint one token per request (`jwtSVIDIncludeJTI`). `most` tokens are known at once.
    """

    binding: TokenBinding = TokenBinding.UID
    leeway: int = 30
    single_use: bool = False
    most: int = 16_384


class TokenOwners:
    """Remembers, until it is good for nothing, who presented each token first."""

    def __init__(self, rules: OwnerRules) -> None:
        self._rules = rules
        self._owners: dict[str, tuple[_Owner, int]] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def claim(self, svid: JwtSvid, peer: Peer, now: float) -> None:
        """Let the peer present the token, if it is the token's owner. Raises Unproven."""
        owner = self._owner(peer)
        once = self._rules.single_use and svid.jti is not None
        name = f"{svid.authority} {svid.jti}" if once else svid.evidence
        known = self._owners.get(name)
        if known is None:
            if len(self._owners) >= self._rules.most:
                self._make_room(now)
            self._owners[name] = (owner, svid.expires_at + self._rules.leeway)
        elif once:
            raise invalid("The token was used before, and is good for one request.")
        elif known[0] != owner:
            raise invalid(f"The token was first presented by another {self._binding_word()}.")

    def _owner(self, peer: Peer) -> _Owner:
        if self._rules.binding is TokenBinding.UID:
            return (peer.uid,)
        if peer.proof is not PeerProof.PIDFD or peer.start_time is None:
            # Without the kernel's own pidfd, another process may have taken the pid over.
            raise Unproven(
                Code.PEER_UNATTESTED,
                "The kernel does not say firmly which process presents this token.",
                fix="run Linux 6.5 or later, or bind tokens by uid",
            )
        return (peer.uid, peer.pid, peer.start_time)

    def _binding_word(self) -> str:
        return "user" if self._rules.binding is TokenBinding.UID else "process"

    def _make_room(self, now: float) -> None:
        """Forget expired tokens, and otherwise the half that expires soonest."""
        live = {key: known for key, known in self._owners.items() if known[1] > now}
        if len(live) >= self._rules.most:
            latest = sorted(live.items(), key=lambda item: item[1][1])
            live = dict(latest[self._rules.most // 2 :])
        self._owners = live
