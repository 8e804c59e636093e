"""`taskmint audit find`: from what a task left elsewhere to the task, and back."""

import json
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from ledger.lives import NODE, START, a_task, accessor, intent, life, written
from taskmint.cli.audit import audit
from taskmint.ledger.traces import named_tasks
from taskmint.model.scope import Json
from taskmint.model.state import TaskState
from taskmint.model.task_id import TaskId, new_task_id, vault_name
from taskmint.ports import Entry, Event

SERIAL = "0a-1b-ff"
KEY_NUMBER = 11787502244541354223  # as ssh-keygen -L prints it; a3959ed6ab01d0ef in Vault

FACTS: Final[dict[str, Json]] = {
    "entitlements": {
        "warehouse": {"kind": "lease", "user_name": "v-mysql-orders-Xy12"},
        "web": {"kind": "lease", "user_name": None, "serial": SERIAL},
        "host": {"kind": None, "user_name": None, "serial": f"{KEY_NUMBER:x}"},
    }
}


def minted(task: TaskId) -> Entry:
    """A row with an account, a certificate and a signed key."""
    handles = {"warehouse": f"database/creds/orders/{task}"}
    return Entry(Event.ACTIVE, START, task, TaskState.ACTIVE, FACTS, handles)


@pytest.fixture
def task() -> TaskId:
    """The one to be found."""
    return a_task()


@pytest.fixture
async def path(tmp_path: Path, task: TaskId) -> Path:
    """A ledger with a task that lives, between two that are over."""
    going = (intent(task), accessor(task), minted(task))
    return await written(tmp_path / "ledger", *life(a_task()), *going, *life(a_task()))


def find(path: Path, trace: str, *, stdin: str | None = None) -> Result:
    """Run the command."""
    words = ["find", "--ledger", str(path), "--output", "json", "--", trace]
    return CliRunner().invoke(audit, words, input=stdin, catch_exceptions=False)


@pytest.mark.parametrize(
    "trace",
    [
        "NAME-x7k2qa",  # a database user of PostgreSQL or MariaDB
        "token-NAME",  # a display name
        "TASK",
        "v-mysql-orders-Xy12",  # a user name that Vault chose
        "0A:1B:FF",  # as Vault and OpenSSL print serial numbers
        "0a1bff",
        str(KEY_NUMBER),
        f"{KEY_NUMBER:x}",
        "accessor-of-TASK",
        "database/creds/orders/TASK",
    ],
)
def test_whatever_an_admin_has_leads_to_the_task(path: Path, task: TaskId, trace: str) -> None:
    """Exactly this task, with who it was, and under which names others see it."""
    text = trace.replace("NAME", vault_name(NODE, task)).replace("TASK", task)
    (record,) = json.loads(find(path, text).stdout)

    assert record["task"] == task
    assert record["spiffe_id"] == "spiffe://prod.example.org/ns/orders/sa/nightly"
    assert record["user_names"] == ["v-mysql-orders-Xy12"]
    assert record["serials"] == [f"{KEY_NUMBER:x}", SERIAL]


def test_a_line_of_vaults_audit_log_leads_to_the_task(path: Path, task: TaskId) -> None:
    """As it stands in the log, on standard input."""
    auth = {"display_name": f"token-{vault_name(NODE, task)}", "metadata": {"task": task}}
    line = json.dumps({"type": "response", "auth": {**auth, "accessor": "hmac-sha256:ab"}})
    (record,) = json.loads(find(path, "-", stdin=line).stdout)
    assert record["task"] == task


def test_an_identity_leads_to_all_of_its_tasks(path: Path) -> None:
    """The SPIFFE ID of a workload."""
    found = json.loads(find(path, "spiffe://prod.example.org/ns/orders/sa/nightly").stdout)
    assert len(found) == 3


def test_what_is_not_there_says_where_it_is(path: Path) -> None:
    """A task of another node is named with the node; nothing at all exits 1 as well."""
    elsewhere = find(path, vault_name("node-2", a_task()))
    assert (elsewhere.exit_code, "node node-2" in elsewhere.stderr) == (1, True)
    assert find(path, "v-mysql-orders-Xy1").exit_code == 1
    assert find(path, "").exit_code == 1


def test_and_back(path: Path, task: TaskId) -> None:
    """From the task to the names under which the database, Vault and a verifier know it."""
    words = ["show", task, "--ledger", str(path)]
    text = CliRunner().invoke(audit, words, catch_exceptions=False).stdout
    assert f"name in vault       {vault_name(NODE, task)}\n" in text
    assert 'user names          ["v-mysql-orders-Xy12"]\n' in text
    assert SERIAL in text


@given(before=st.text(), after=st.text(), number=st.integers(0, 2**80 - 1))
def test_a_name_is_found_in_any_text(before: str, after: str, number: int) -> None:
    """Where it stands by itself: between other words or quotes, and in any language."""
    one = new_task_id(1_795_000_000_000, number.to_bytes(10))
    text = f"{before} token-{vault_name('node-1', one)} {after}"
    assert named_tasks(text).get(one) == "node-1"
