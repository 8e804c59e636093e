"""The definitions that scopes.py compares with the benchmark's own of one credential."""

import json
from dataclasses import replace
from typing import Final

from taskmint.policy.database import POSTGRESQL_REVOCATION

from .arms import Kind

WRITTEN: Final = "written"
TEN: Final = "ten"
READ: Final = "read"
TEN_READ: Final = "ten-read"
NOTES: Final = "bench-notes"  # a KV engine: nothing in it makes one request wait for another
NOTE: Final = "note"

_CREATION: Final = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
)


def definitions(who: str, dead_man: str, path: str, connection: str) -> str:
    """Write the definitions that are compared with the benchmark's own of one credential."""
    head = f"""\
    owner: bench@example.org
    class: batch
    dead_man: {dead_man}
    who: [{who}]
    deadline: {{default: 1h, max: 2h}}
    ends: {{bind: [peer]}}
    scope:
"""
    ten = "".join(
        f"      warehouse{number}:\n        secret: {{mount: database, path: {path}}}\n"
        for number in range(10)
    )
    written = f"""\
      warehouse:
        database:
          mount: database
          connection: {connection}
          creation: [{json.dumps(_CREATION)}, 'GRANT orders_ro_eu TO "{{{{name}}}}"']
          revocation: [{json.dumps(POSTGRESQL_REVOCATION)}]
          proof: lease
"""
    reads = [
        f"      note{number}:\n        secret: {{mount: {NOTES}, path: {NOTE}, revocable: false}}\n"
        for number in range(10)
    ]
    scopes = {WRITTEN: written, TEN: ten, READ: reads[0], TEN_READ: "".join(reads)}
    return "".join(f"  bench-{name}:\n{head}{scope}" for name, scope in scopes.items())


def kinds(one: Kind) -> tuple[Kind, ...]:
    """Name them for the generator; of these, ten accounts are what the bare calls make as well."""
    made = (
        replace(one, name=name, definition=f"bench-{name}")
        for name in (WRITTEN, TEN, READ, TEN_READ)
    )
    return tuple(replace(kind, mints=10 if kind.name == TEN else 1) for kind in made)
