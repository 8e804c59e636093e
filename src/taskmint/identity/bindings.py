"""What tasks are bound to, of every kind: processes and units behind one port (ports.Processes)."""

from taskmint.model.peer import Peer
from taskmint.model.scope import BindKind
from taskmint.ports import BoundProcess, BoundUnit

from .peers import PeerReader
from .processes import HeldProcesses, PidfdWatch
from .units import HeldUnits, UnitWatch


class Bindings:
    """Sends each kind to who knows it."""

    def __init__(self, reader: PeerReader) -> None:
        self._processes = HeldProcesses(reader)
        self._units = HeldUnits()

    def bind(self, peer: Peer, kind: BindKind) -> PidfdWatch | UnitWatch:
        """Hold what `kind` means for this peer. Raises Unprocessable(bind_refused)."""
        if kind is BindKind.UNIT:
            return self._units.bind(peer)
        return self._processes.bind(peer, kind)

    def reopen(self, bound: BoundProcess | BoundUnit) -> PidfdWatch | UnitWatch | None:
        """Hold what was recorded again, or None when it is not provably the same one, alive."""
        if isinstance(bound, BoundUnit):
            return self._units.reopen(bound)
        return self._processes.reopen(bound)
