"""Who may do what on the admin socket, by the kernel's word on who connects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import web

from taskmint.errors import Code, Denied, TaskmintError, Unproven
from taskmint.model.peer import Peer

from .gate import PEER


class Role(StrEnum):
    """The roles (decisions.md, admin roles)."""

    OPERATOR = "operator"
    APPROVER = "approver"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Members:
    """The uids that hold a role, and the gids, whether a process's own or supplementary."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Holders:
    """
    Who holds which role.

    `require_present` raises Unproven for a peer that the kernel does not name, or that has exited:
    who goes on with the connection of a process that is gone is not that process. `unproven` is
    told of it.
    """

    by_role: Mapping[Role, Members]
    require_present: Callable[[Peer], None]
    unproven: Callable[[Peer, TaskmintError], None]

    def require(self, request: web.Request, *roles: Role) -> Peer:
        """
        Return the peer, who is alive and holds one of the roles.

        Raises Unproven(peer_unattested), Denied(role_missing).
        """
        peer = request[PEER]
        try:
            self.require_present(peer)
        except Unproven as error:
            self.unproven(peer, error)
            raise
        for role in roles:
            members = self.by_role.get(role, Members())
            if peer.uid in members.uids or members.gids & {peer.gid, *peer.groups}:
                return peer
        raise Denied(
            Code.ROLE_MISSING,
            f"uid {peer.uid} holds none of the roles {', '.join(roles)}",
            fix="add it under admin.roles in the daemon's config",
        )
