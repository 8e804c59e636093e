"""What Vault says of times and lists, read for comparing with the plan: pure."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from taskmint.model.scope import Json
from taskmint.policy.database import expires_by_itself

from .live import Fields

SYSTEM_MAX_TTL: Final = 32 * 24 * 3600  # Vault's own default, 768 h


def account_clock(role: Mapping[str, Json]) -> timedelta | None:
    """Say when the database itself refuses a role's unrenewed accounts; None when it never does."""
    life = seconds(role.get("default_ttl"))
    if life <= 0 or not expires_by_itself(texts(role.get("creation_statements"))):
        return None
    return timedelta(seconds=life)


def longest_lease(mount: Fields) -> int:
    """Return the most seconds that a lease of this mount may live."""
    config = mount.get("config")
    tuned = config.get("max_lease_ttl") if isinstance(config, dict) else None
    return seconds(tuned) or SYSTEM_MAX_TTL


def seconds(value: Json) -> int:
    """Read a duration of Vault's; what is none counts as unset."""
    return int(value) if isinstance(value, int | float) else 0


def texts(value: Json) -> list[str]:
    """Read a list of texts; what is none is empty."""
    return [str(item) for item in value] if isinstance(value, list) else []
