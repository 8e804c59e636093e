"""`taskmint top`: the daemon and its tasks, drawn anew every second; for a terminal only."""

import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import click

from .admin import status_text
from .admin_socket import ask, common_socket, understood
from .tasks import select, tasks_table
from .terminal import draw, is_terminal, pause

_NOBODY: Final[Mapping[str, str | None]] = {"definition": None, "caller": None, "state": None}
_LINES_BESIDE: Final = 3  # the clock, an empty one, and the cursor's


@click.command()
@common_socket
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds."
)
def top(socket: str, every: float) -> None:
    """Watch the daemon and its tasks, live, until Ctrl-C; what is being revoked comes first."""
    if not is_terminal(sys.stdout):
        raise click.UsageError("top draws on a terminal; `tasks --watch 1` writes to a pipe")
    with suppress(KeyboardInterrupt):  # also while the daemon is asked
        while True:
            status = ask(socket, "GET", "/v1/admin/status")
            listed = ask(socket, "GET", "/v1/admin/tasks")
            with understood():
                screen = _screen(status, listed)
            draw(screen)
            if not pause(every):
                return


def _screen(status: Mapping[str, Any], listed: Mapping[str, Any]) -> str:
    """Fit both into the terminal's lines; each line is cut by the terminal's width."""
    head = f"{time.strftime('%H:%M:%S')}\n{status_text(status)}\n"
    lines = shutil.get_terminal_size().lines - head.count("\n") - _LINES_BESIDE
    tasks = select(listed["tasks"], _NOBODY, "state", reverse=True)
    shown = tasks_table(tasks[: max(1, lines - 1)])
    left = len(tasks) - max(1, lines - 1)
    return f"{head}\n{shown}" + (f"\n… and {left} more" if left > 0 else "")
