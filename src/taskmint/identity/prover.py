"""
What a caller presents and who the kernel says it is in, a proven `Caller` out.

This is the only place that builds a `Caller`. It decides nothing about what the caller may do.
"""

from contextlib import suppress
from datetime import UTC, datetime

from taskmint.errors import Code, Unavailable, Unproven
from taskmint.model.caller import Caller, IdentityMethod
from taskmint.model.peer import Peer
from taskmint.model.secret import Secret
from taskmint.ports import Clock, Presented

from .believer import Believer
from .delegation import Delegation
from .jwt_svid import JwtRules, invalid
from .peers import require_present
from .token_owners import OwnerRules, TokenOwners
from .verdicts import Verdicts
from .x509_svid import completed


class Prover:
    """
    Proves callers against what is believed. Fits ports.Identity and ports.Authorities.
    """

    def __init__(
        self,
        believer: Believer,
        clock: Clock,
        rules: JwtRules,
        *,
        owners: OwnerRules | None = None,
        delegation: Delegation | None = None,
    ) -> None:
        self.believer = believer
        self._clock = clock
        self._verdicts = Verdicts(rules)
        self._owners = TokenOwners(owners or OwnerRules(leeway=rules.leeway))
        self._delegation = delegation

    def ready(self) -> str | None:
        """None when callers can be proven now, else the reason why not."""
        return self.believer.ready()

    async def identify(self, presented: Presented, peer: Peer) -> Caller:
        """
        Prove who is calling.

        1. The peer must be a process that the kernel names, and alive.
        2. It must present something, and one thing only: a token, or the certificate that its
           connection was opened with; or nothing, where the agent may be asked who it is.
        3. We must know whom to believe.
        4. What it presents must be an SVID for us (jwt_svid.py, x509_svid.py), now: also on a
           connection that was opened when it still was.
        5. A token must not be another user's. (A certificate's key was proven in the handshake.)
        6. The peer must still be alive: what was proven was proven of this process.

        Raises Unproven, Unavailable(identity_unavailable).
        """
        # 1.
        require_present(peer)
        # 2.
        if presented.chain and presented.bearer is not None:
            raise invalid("The request carries a token on a connection that has a certificate.")
        if presented.chain:
            caller = self._by_chain(presented.chain, peer)
        elif presented.bearer is not None:
            caller = self._by_token(presented.bearer, peer)
        elif self._delegation is not None:
            caller = await self._by_delegation(self._delegation, peer)
        else:
            raise Unproven(
                Code.CREDENTIAL_MISSING,
                "The request carries no credential.",
                fix="send Authorization: Bearer with a JWT-SVID for this daemon's audience",
            )
        # 6.
        require_present(peer)
        return caller

    def require_present(self, peer: Peer) -> None:
        """Make sure that the process which was proven is there to be answered. Raises Unproven."""
        require_present(peer)

    def stands(self, authority: str) -> bool:
        """Whether a `Caller.authority` has not been withdrawn since, as far as it is known."""
        if authority.startswith("delegated:"):
            return self._delegation is not None and self._delegation.stands(authority)
        return self.believer.stands(authority)

    async def changed(self, after: int) -> int:
        """Wait until what the agent says has changed since `after`; returns what to wait after."""
        return await self.believer.changed(after)

    def admit(self, verified: tuple[bytes, ...], presented: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """
        Verify a chain when its connection is opened; returns the one that is good.

        `verified` is the chain that OpenSSL found. Its end may be a certificate that another
        domain lists over the same name and key; then what was presented is completed again, from
        the bundle of its own domain alone. Raises Unproven, Unavailable.
        """
        _require(self.believer.ready_x509())
        believed, now = self.believer.now(), self._now()
        self._verdicts.use(believed)
        try:
            self._verdicts.verify_chain(verified, now)
        except Unproven:
            for chain in completed(presented, believed.x509):
                with suppress(Unproven):
                    self._verdicts.verify_chain(chain, now)
                    return chain
            raise
        return verified

    def _by_token(self, token: Secret[str], peer: Peer) -> Caller:
        # 3.
        _require(self.believer.ready())
        # 4.
        now = self._now()
        self._verdicts.use(self.believer.now())
        svid = self._verdicts.verify_token(token.reveal(), now)
        # 5.
        binding = self._owners.claim(svid, peer, now)
        return Caller(
            spiffe_id=svid.spiffe_id,
            method=IdentityMethod.JWT_SVID,
            peer=peer,
            proven_until=datetime.fromtimestamp(svid.expires_at, UTC),
            evidence=svid.evidence,
            authority=svid.authority,
            binding=binding,
        )

    def _by_chain(self, chain: tuple[bytes, ...], peer: Peer) -> Caller:
        # 3.
        _require(self.believer.ready_x509())
        # 4.
        self._verdicts.use(self.believer.now())
        svid = self._verdicts.verify_chain(chain, self._now())
        return Caller(
            spiffe_id=svid.spiffe_id,
            method=IdentityMethod.X509_SVID,
            peer=peer,
            proven_until=svid.expires_at,
            evidence=svid.evidence,
            authority=svid.authority,
        )

    async def _by_delegation(self, delegation: Delegation, peer: Peer) -> Caller:
        # 3. and 4.: the agent itself is asked
        attested = await delegation.attest(peer)
        return Caller(
            spiffe_id=attested.spiffe_id,
            method=IdentityMethod.DELEGATED,
            peer=peer,
            proven_until=attested.expires_at,
            evidence=attested.evidence,
            authority=attested.authority,
        )

    def _now(self) -> float:
        return self._clock.utcnow().timestamp()


def _require(why_not: str | None) -> None:
    if why_not is not None:
        raise Unavailable(
            Code.IDENTITY_UNAVAILABLE,
            f"Callers cannot be proven now: {why_not}.",
            fix="check that the SPIRE agent runs and that this daemon is registered",
            created_nothing=True,
        )
