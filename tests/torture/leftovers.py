"""
What an auditor found beside what there was before: what gives access, and what does not.

Nobody gets in by an account that may not log in or is past its VALID UNTIL, nor by a database lease
whose time is over and which Vault has still to clear away. Everything else is an orphan.
"""

import json
from datetime import UTC, datetime

from auditor import Auditor, Inventory, difference
from stack import LOGIN


def left_over(before: Inventory, auditor: Auditor) -> tuple[list[str], list[str]]:
    """Look now; return the lines that tell of access, and those that do not."""
    now = datetime.now(UTC)
    after = auditor.inventory()
    closed = {name for name in after.accounts if not _lets_in(after.accounts[name], now)}
    access: list[str] = []
    harmless: list[str] = []
    for line in difference(before, after):
        sign, kind, name, *_ = line.split()
        if LOGIN in line:
            continue
        match kind, sign:
            case "accounts:", "+":
                gives = name not in closed
            case "accounts:", "~":
                gives = not _differs_by(before, after, name, closed)
            case "leases:", "+":
                gives = not _is_over(auditor, name, now)
            case _:
                gives = True
        (access if gives else harmless).append(line)
    return access, harmless


def _lets_in(text: str, now: datetime) -> bool:
    account = json.loads(text)
    until = account["until"]
    return bool(account["login"]) and (until is None or datetime.fromisoformat(until) > now)


def _differs_by(before: Inventory, after: Inventory, name: str, closed: set[str]) -> bool:
    """Whether an account has only come to be a member of accounts that let nobody in."""
    old, new = json.loads(before.accounts[name]), json.loads(after.accounts[name])
    came = {group.strip('"') for group in set(new.pop("in")) - set(old.pop("in"))}
    return old == new and came <= closed


def _is_over(auditor: Auditor, lease: str, now: datetime) -> bool:
    """Whether a database lease's time has passed; one that is gone by now is over too."""
    if not lease.startswith("database/creds/"):
        return False
    expires = auditor.lease_expiry(lease)
    return expires is None or datetime.fromisoformat(expires) <= now
