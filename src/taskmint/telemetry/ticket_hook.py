"""A ticket in, whether it is open out: a program of the operator's is asked. Fits ports.Tickets."""

from collections.abc import Sequence
from datetime import timedelta

from .commands import run_command


class TicketHook:
    """
    Runs the hook with `{"version", "ticket", "definition", "spiffe_id", "node"}` on its standard
    input. Exit 0 within `at_most` is open; everything else is not.
    """

    def __init__(self, argv: Sequence[str], node: str, at_most: timedelta) -> None:
        self._argv = argv
        self._node = node
        self._at_most = at_most

    async def why_not_open(self, ticket: str, definition: str, spiffe_id: str) -> str | None:
        """None when it is open, else why not."""
        return await run_command(
            self._argv,
            {
                "version": 1,
                "ticket": ticket,
                "definition": definition,
                "spiffe_id": spiffe_id,
                "node": self._node,
            },
            self._at_most,
        )
