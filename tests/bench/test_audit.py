"""The benchmark compares what the arms asked by the server's own audit log."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.audit import AuditTail, Call, ListsDiffer, difference, per_task

LOOKUP = Call("standing", "update", "sys/leases/lookup", ("lease_id",), refused=True)
MINT = Call("task", "read", "database/creds/orders", (), refused=False)


def line(kind: str, request: Mapping[str, object], **more: object) -> str:
    """Write one line as the file audit device does."""
    return json.dumps({"type": kind, "request": request, **more}) + "\n"


def test_only_what_was_appended_and_answered_is_read(tmp_path: Path) -> None:
    """A request and its response are one call; older lines and upkeep are nobody's."""
    log = tmp_path / "audit.log"
    mint = {"operation": "read", "path": "database/creds/orders"}
    lookup = {"operation": "update", "path": "sys/leases/lookup", "data": {"lease_id": "hmac"}}
    log.write_text(line("response", mint))
    tail = AuditTail(log)
    with log.open("a") as file:
        file.write(line("request", mint))
        file.write(line("response", mint, auth={"policies": ["taskmint-task-orders"]}))
        file.write(line("response", {"operation": "update", "path": "auth/token/renew-self"}))
        file.write(line("response", lookup, auth={"policies": ["taskmint-daemon"]}, error="gone"))

    assert tail.calls() == [MINT, LOOKUP]
    assert tail.calls() == []


def test_a_cell_is_divided_by_its_tasks() -> None:
    """Every task of a cell asks the same."""
    assert per_task([MINT, LOOKUP] * 5, 5) == Counter([MINT, LOOKUP])


@pytest.mark.parametrize("count", [4, 6])
def test_a_call_that_only_some_tasks_made_is_found(count: int) -> None:
    """A remainder is not rounded away."""
    with pytest.raises(ListsDiffer, match=f"{count} calls"):
        per_task([MINT] * count, 5)


def test_lists_that_differ_are_told_apart() -> None:
    """A call more on either side is named."""
    assert difference(Counter([MINT]), Counter([MINT])) == ""
    assert "only the second: standing: update sys/leases/lookup {lease_id} (refused)" in (
        difference(Counter([MINT]), Counter([MINT, LOOKUP]))
    )
