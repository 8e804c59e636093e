"""Keeps mounts apart: as many calls at once for each, so that a slow one stalls no other (P10)."""

import asyncio
from collections import defaultdict
from typing import Final

from taskmint.ports import Revocable, RevocableKind

from .revision import Revision

TOKENS: Final = "auth/token"


class Lanes:
    """
    One queue for each mount, first come first served.

    Who waits holds no connection and no place elsewhere; there are as many as there are tasks.
    """

    def __init__(self, width: int) -> None:
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(width)
        )

    def through(self, mount: str) -> asyncio.Semaphore:
        """Return what to enter: it holds one of the mount's places."""
        return self._places[mount]


def mount_of(revision: Revision, revocable: Revocable) -> str:
    """Say which mount a handle of this revision belongs to."""
    if revocable.kind is RevocableKind.LEASE:
        for held in revision.held:
            if held.revocable is revocable:
                return held.entitlement.mount
    return TOKENS
