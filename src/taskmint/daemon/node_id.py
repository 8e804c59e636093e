"""
What tells this node from others, in every name of ours in Vault: configured, or made once and kept.

Kept beside the ledger, so whoever loses the one loses the other.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from taskmint.errors import Code, ConfigError, Finding, Unavailable
from taskmint.ledger.files import check_directory
from taskmint.model.task_id import is_node_id

from .files import Owners, read_small_file

_NAME: Final = "node-id"
_GENERATED_ID_BYTES: Final = 5


def node_id(configured: str | None, directory: Path) -> str:
    """
    Return the configured id, or the one made at the first start and kept in `directory`.

    Raises Unavailable(ledger_unavailable) for a directory that is not there, not ours or takes no
    file, ConfigError(config_invalid) when what is kept is no id.
    """
    if configured is not None:
        return configured
    check_directory(directory)
    return kept_node_id(directory) or _make(directory)


def kept_node_id(directory: Path, owners: Owners = frozenset()) -> str | None:
    """Return the id that is kept there, None before the first start. Raises ConfigError."""
    kept = directory / _NAME
    if not os.path.lexists(kept):
        return None
    found = read_small_file(str(kept), owners).decode("ascii", "replace").strip()
    if not is_node_id(found):
        problem = "does not hold a node id"
        fix = "write the ID that our names in Vault, taskmint-ID-..., carry, or set node.id to it"
        raise ConfigError(Code.CONFIG_INVALID, (Finding(str(kept), 1, 1, "", problem, fix),))
    return found


def _make(directory: Path) -> str:
    made = f"n-{secrets.token_hex(_GENERATED_ID_BYTES)}"
    kept = directory / _NAME
    fresh = kept.with_suffix(".new")
    try:
        fresh.write_text(made + "\n", "ascii")
        fresh.replace(kept)
    except OSError as error:
        raise Unavailable(
            Code.LEDGER_UNAVAILABLE,
            f"the node id cannot be kept in {kept.parent}: {error.strerror}",
            fix="let the daemon's user write there, make room, or set node.id",
        ) from error
    return made
