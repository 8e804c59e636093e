"""
Keeps this process's memory from processes of its own user, and from core handlers.

RLIMIT_CORE binds no handler behind a pipe (core(5)), and without more whoever runs as our user may
trace us: a hook that the config names, for one. Root may still. What was held before stays held.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2), linux/prctl.h


def keep_private(agent: Path) -> bool:
    """
    Let nobody of our user trace this process or read its memory; returns whether that is so.

    An agent of our own user, as in development, could not read any more who we are, which it must
    to give us an identity; and it could take that identity itself. There nothing is changed.
    `agent` is its socket; one that is not there is no such agent's. Raises OSError.
    """
    if _owner(agent) == os.geteuid():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")
    return True


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None
