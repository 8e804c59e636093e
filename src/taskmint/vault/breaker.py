"""
Spares a mount that keeps failing, and its callers the wait: new mints are refused for a moment.

Only making goes through here. Renewing and taking back are always tried.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from taskmint.errors import Code, Unavailable

FAILURES: Final = 5
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 15.0


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    pause: float = FIRST_PAUSE
    closed_from: float = 0.0  # on the loop's clock; before it, nothing is let through


class Breaker:
    """
    Counts failures in a row, by mount; after some, opens for a pause that doubles.

    After the pause one call is let through: its success closes the circuit, its failure opens it
    again.
    """

    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}

    def admit(self, mount: str) -> None:
        """Let a call through, or raise as `check` does; after the pause it is the one trial."""
        self.check(mount)
        circuit = self._circuits.get(mount)
        if circuit is not None and circuit.failures >= FAILURES:
            circuit.closed_from = asyncio.get_running_loop().time() + circuit.pause

    def check(self, mount: str) -> None:
        """Raise Unavailable(vault_unavailable), with nothing created, while the mount is spared."""
        circuit = self._circuits.get(mount)
        if circuit is None or circuit.failures < FAILURES:
            return
        left = circuit.closed_from - asyncio.get_running_loop().time()
        if left > 0:
            raise Unavailable(
                Code.VAULT_UNAVAILABLE,
                f"Vault's {mount} failed {circuit.failures} times in a row; it is tried again soon",
                fix="see why that mount fails",
                retry_after=timedelta(seconds=left),
                created_nothing=True,
            )

    def succeeded(self, mount: str) -> None:
        """Note an answer that is no failure of the mount."""
        self._circuits.pop(mount, None)

    def failed(self, mount: str) -> None:
        """Note a failure of the mount, or of Vault itself."""
        circuit = self._circuits.setdefault(mount, _Circuit())
        circuit.failures += 1
        if circuit.failures >= FAILURES:
            circuit.closed_from = asyncio.get_running_loop().time() + circuit.pause
            circuit.pause = min(circuit.pause * 2, LONGEST_PAUSE)
