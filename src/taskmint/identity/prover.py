"""
What a caller presents and who the kernel says it is in, a proven `Caller` out.

This is the only place that builds a `Caller`. It decides nothing about what the caller may do.
"""

from datetime import UTC, datetime
from typing import Final

from taskmint.errors import Code, Unavailable, Unproven
from taskmint.model.caller import Caller, IdentityMethod
from taskmint.model.peer import Peer, PeerProof
from taskmint.ports import Clock, Presented

from . import procfs
from .jwt_svid import JwtRules, invalid
from .token_owners import TokenBinding, TokenOwners
from .trust import Trust
from .verdicts import Verdicts
from .workload_api import WorkloadApi

_NOBODY: Final = Trust()


class Prover:
    """
    Proves callers against what the Workload API says. Fits ports.Identity.

    `trust_domains` are believed, when their bundles are known; none named means our own, which is
    the one of the X.509-SVID that the agent gives us.
    """

    def __init__(
        self,
        api: WorkloadApi,
        clock: Clock,
        rules: JwtRules,
        *,
        trust_domains: frozenset[str] = frozenset(),
        binding: TokenBinding = TokenBinding.UID,
    ) -> None:
        self._api = api
        self._clock = clock
        self._named = trust_domains
        self._verdicts = Verdicts(rules)
        self._owners = TokenOwners(binding)
        self._seen = _NOBODY
        self._believed = _NOBODY.jwt

    def ready(self) -> str | None:
        """None when callers can be proven now, else the reason why not."""
        why_not = self._api.ready()
        if why_not is None and not self._refresh():
            return "the Workload API gave no bundle of a trust domain that is believed here"
        return why_not

    async def identify(self, presented: Presented, peer: Peer) -> Caller:
        """
        Prove who is calling.

        1. The peer must be a process that the kernel names, and alive.
        2. It must present something, and one thing only.
        3. We must know whom to believe.
        4. The token must be a JWT-SVID for us (jwt_svid.py).
        5. It must not be another user's.
        6. The peer must still be alive: what was proven was proven of this process.

        Raises Unproven, Unavailable(identity_unavailable).
        """
        # 1.
        _check_alive(peer)
        # 2.
        if presented.chain:
            raise invalid("Client certificates are not accepted on this socket.")
        if presented.bearer is None:
            raise Unproven(
                Code.CREDENTIAL_MISSING,
                "The request carries no credential.",
                fix="send Authorization: Bearer with a JWT-SVID for this daemon's audience",
            )
        # 3.
        why_not = self.ready()
        if why_not is not None:
            raise Unavailable(
                Code.IDENTITY_UNAVAILABLE,
                f"Callers cannot be proven now: {why_not}.",
                fix="check that the SPIRE agent runs and that this daemon is registered",
                created_nothing=True,
            )
        # 4.
        now = self._clock.utcnow().timestamp()
        svid = self._verdicts.verify(presented.bearer.reveal(), now)
        # 5.
        self._owners.claim(svid, peer, now)
        # 6.
        _check_alive(peer)
        return Caller(
            spiffe_id=svid.spiffe_id,
            method=IdentityMethod.JWT_SVID,
            peer=peer,
            proven_until=datetime.fromtimestamp(svid.expires_at, UTC),
            evidence=svid.evidence,
        )

    def _refresh(self) -> bool:
        """Take over what the agent says now; whether anybody is believed at all."""
        trust = self._api.trust
        if trust is not self._seen:
            own = {trust.own.spiffe_id.trust_domain} if trust.own else set()
            believed = self._named or own
            self._believed = {
                name: bundle for name, bundle in trust.jwt.items() if name in believed
            }
            self._verdicts.use(self._believed)
            self._seen = trust
        return bool(self._believed)


def _check_alive(peer: Peer) -> None:
    if peer.proof is PeerProof.NONE or peer.pidfd is None:
        raise Unproven(
            Code.PEER_UNATTESTED,
            "The kernel does not say which process this is.",
            fix="connect from the daemon's own user and pid namespace",
        )
    if procfs.has_exited(peer.pidfd):
        raise Unproven(
            Code.PEER_UNATTESTED,
            "The process that connected has exited.",
            fix="connect from the process that asks",
        )
