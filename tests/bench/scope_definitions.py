"""The definitions that scopes.py compares with the benchmark's own of one credential."""

import json
from dataclasses import replace
from typing import Final

from taskmint.policy.database import POSTGRESQL_REVOCATION

from .arms import Kind

WRITTEN: Final = "written"
TEN: Final = "ten"

_CREATION: Final = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
)


def definitions(who: str, dead_man: str, path: str, connection: str) -> str:
    """Write the two definitions that are compared with the benchmark's own of one credential."""
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
    return f"  bench-written:\n{head}{written}  bench-ten:\n{head}{ten}"


def kinds(one: Kind) -> tuple[Kind, ...]:
    """Name them for the generator, which asks the daemon for them and no peer."""
    return tuple(replace(one, name=name, definition=f"bench-{name}") for name in (WRITTEN, TEN))
