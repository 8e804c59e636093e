"""An identity that believes tokens of the form `path` or `path#evidence`."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from taskmint.errors import Code, Unproven
from taskmint.model.caller import Caller, IdentityMethod
from taskmint.model.peer import Peer
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Presented


@dataclass
class BelievingIdentity:
    """Proves whoever presents a bearer token starting with a slash."""

    not_ready: str | None = None
    gone_when_asked_again: bool = False  # the caller exits once it was identified

    async def identify(self, presented: Presented, peer: Peer) -> Caller:
        """Take the token's text as the path of a SPIFFE ID."""
        token = presented.bearer.reveal() if presented.bearer else ""
        path, _, evidence = token.partition("#")
        if not path.startswith("/"):
            raise Unproven(Code.CREDENTIAL_MISSING, "no token", fix="send one")
        until = datetime.now(UTC) + timedelta(minutes=5)
        spiffe_id = SpiffeId("example.org", path)
        return Caller(spiffe_id, IdentityMethod.JWT_SVID, peer, until, evidence or "e1")

    def require_present(self, peer: Peer) -> None:
        """As told."""
        del peer
        if self.gone_when_asked_again:
            raise Unproven(Code.PEER_UNATTESTED, "it has exited", fix="stay")

    def ready(self) -> str | None:
        """As told."""
        return self.not_ready
