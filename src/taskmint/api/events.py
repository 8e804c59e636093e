"""
`GET /v1/tasks/{id}/events`: a task's changes in, server-sent events out.

Each event is named after what changed and carries the whole task, without credentials (HTML
Living Standard, 9.2). The stream is also the connection that a task may be bound to.
"""

from datetime import timedelta
from typing import Final

from aiohttp import web

from taskmint.tasks.following import Following, RequestFollowing, Told

from .bodies import task_reply
from .connection import CONNECTION

KEEP_ALIVE: Final = timedelta(seconds=15)
CONTENT_TYPE: Final = "text/event-stream"
_COMMENT: Final = b": the task goes on\n\n"


async def stream(
    request: web.Request, following: Following | RequestFollowing
) -> web.StreamResponse:
    """
    Send every change until the task is over, the daemon stops, or the caller says anything more.

    Raises BadRequest(malformed_request) when too much was sent behind the request.
    """
    headers = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    request[CONNECTION].on_lost(following.hang_up)
    with following:
        await response.prepare(request)
        async for told in following.changes(KEEP_ALIVE):
            await response.write(_COMMENT if told is None else _event(told))
    return response


def _event(told: Told) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (told.topic.value.encode(), task_reply(told.view))
