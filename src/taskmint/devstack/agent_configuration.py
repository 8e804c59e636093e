"""What the stack tells the development agent, as one JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from .registration import Entry


@dataclass(frozen=True, slots=True)
class Trust:
    """The trust domain, and how long its SVIDs live, in seconds; SPIRE's defaults."""

    domain: str = "example.org"
    jwt_life: float = 300.0
    x509_life: float = 3600.0


@dataclass(frozen=True, slots=True)
class AgentConfiguration:
    """
    `socket` is the Workload API's path, `directory` a private one for all else, `jwks_port` where
    Vault fetches the keys.
    """

    trust: Trust
    socket: str
    directory: str
    jwks_port: int
    entries: tuple[Entry, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` wrote."""
        raw = json.loads(text)
        entries = tuple(Entry(**entry) for entry in raw["entries"])
        return cls(**raw | {"trust": Trust(**raw["trust"]), "entries": entries})

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @property
    def control(self) -> Path:
        """The control socket's path."""
        return Path(self.directory) / "control.sock"
