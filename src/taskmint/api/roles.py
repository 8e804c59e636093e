"""Who may do what on the admin socket, by the kernel's word on who connects."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from taskmint.errors import Code, Denied
from taskmint.model.peer import Peer

from .gate import PEER


class Role(StrEnum):
    """The roles (decisions.md, admin roles)."""

    OPERATOR = "operator"
    APPROVER = "approver"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Members:
    """The uids and gids that hold a role."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


def require(request: web.Request, holders: Mapping[Role, Members], *roles: Role) -> Peer:
    """Return the peer, who holds one of the roles. Raises Denied(role_missing)."""
    peer = request[PEER]
    for role in roles:
        members = holders.get(role, Members())
        if peer.uid in members.uids or peer.gid in members.gids:
            return peer
    raise Denied(
        Code.ROLE_MISSING,
        f"uid {peer.uid} holds none of the roles {', '.join(roles)}",
        fix="add it under admin.roles in the daemon's config",
    )
