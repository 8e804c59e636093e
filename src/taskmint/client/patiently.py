"""What is asked of the daemon until it is answered, while that can help: for an asyncio program."""

import asyncio
from datetime import UTC, datetime

from .answers import FORGOTTEN, Ended, Waiting, ended, waiting
from .calls import Outcome
from .daemon_api import DaemonApi
from .errors import ClientError
from .timing import POLL_PAUSE, Patience, is_forgotten, waits_for, waits_too_long


async def until_decided(api: DaemonApi, view: Waiting) -> None:
    """
    Return once a request is approved or over.

    A daemon that is away meanwhile is asked again for as long as the request may wait. Raises
    ClientError.
    """
    loop = asyncio.get_running_loop()
    patience = patience_for(view)
    while True:
        try:
            if waiting(await api.look(view.id)) is None:
                return
        except ClientError as error:
            pause = patience.pause(error, loop.time())
            if pause is None:
                raise
        else:
            pause = POLL_PAUSE
            if patience.is_over(loop.time()):
                raise waits_too_long(view)
        await asyncio.sleep(pause)


def patience_for(view: Waiting) -> Patience:
    """As much as the request has time."""
    seconds = waits_for(view, datetime.now(UTC))
    return Patience(asyncio.get_running_loop().time(), at_first=True, seconds=seconds)


async def end(api: DaemonApi, task: str, outcome: Outcome) -> Ended:
    """
    End a task, or a request that waits; a daemon that is away is asked again for ten seconds.

    Raises ClientError after that.
    """
    loop = asyncio.get_running_loop()
    patience = Patience(loop.time(), at_first=True)
    while True:
        try:
            return ended(await api.end(task, outcome))
        except ClientError as error:
            if is_forgotten(error):
                return FORGOTTEN
            pause = patience.pause(error, loop.time())
            if pause is None:
                raise
        await asyncio.sleep(pause)
