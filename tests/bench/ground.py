"""
What the benchmark stands on: the embedded stack with two task definitions, the daemon, the proxy.

The peers speak to the same OpenBao by the same token roles and policies that `taskmint vault
apply` wrote for the daemon.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from taskmint.devstack.executables import copied_interpreter
from taskmint.devstack.openbao import bao_binary
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.vault_setup import set_up_task_connection
from taskmint.model.secret import Secret
from taskmint.policy.names import hand_role, token_policy, token_role
from taskmint.policy.plan import DAEMON_POLICY

from .arms import Kind
from .load import Load
from .measure import pid_of
from .proxy import bao_proxy
from .scope_definitions import NOTE, NOTES, definitions, kinds

POSTGRES: Final = "postgres"
TOKEN: Final = "token"

_BENCH_ID: Final = "spiffe://example.org/bench"
_DEAD_MAN: Final = timedelta(minutes=10)  # so long that no renewal falls into what is measured
_HANDED_OUT: Final = "bench-handed-out"
_TWO_CALL: Final = "bench-two-call"
_ROLE: Final = "orders-ro-eu"

_POLICY: Final = f"""\
version: 1
tasks:
  bench-postgres:
    owner: bench@example.org
    class: batch
    dead_man: {int(_DEAD_MAN.total_seconds())}s
    who: [{_BENCH_ID}]
    deadline: {{default: 1h, max: 2h}}
    ends: {{bind: [peer]}}
    scope:
      warehouse:
        secret: {{mount: database, path: creds/{_ROLE}}}
  bench-token:
    owner: bench@example.org
    class: batch
    dead_man: {int(_DEAD_MAN.total_seconds())}s
    who: [{_BENCH_ID}]
    deadline: {{default: 1h, max: 2h}}
    ends: {{bind: [peer]}}
    scope:
      pass:
        token: {{policy: {_HANDED_OUT}}}
"""
# What a standing identity needs for the two-call form; with a task, nobody has it.
_STANDING_RIGHTS: Final = f"""\
path "database/creds/{_ROLE}" {{ capabilities = ["read"] }}
path "auth/token/create/{_TWO_CALL}" {{ capabilities = ["update"] }}
"""
KINDS: Final = (
    Kind(
        name=POSTGRES,
        definition="bench-postgres",
        token_role=token_role("bench-postgres"),
        token_policy=token_policy("bench-postgres", ()),
        mint_path=f"database/creds/{_ROLE}",
        mint_body=None,
        two_call_path=f"database/creds/{_ROLE}",
    ),
    Kind(
        name=TOKEN,
        definition="bench-token",
        token_role=token_role("bench-token"),
        token_policy=token_policy("bench-token", ()),
        mint_path=f"auth/token/create/{hand_role('bench-token', 'pass')}",
        mint_body={"policies": _HANDED_OUT},
        two_call_path=f"auth/token/create/{_TWO_CALL}",
    ),
)


@dataclass(frozen=True, slots=True)
class Ground:
    """Everything that runs; pids are for measuring."""

    stack: Stack
    load: Load
    python: Path
    daemon_pid: int
    proxy_pid: int
    bao_pid: int
    postgres_pid: int

    @classmethod
    @contextlib.asynccontextmanager
    async def standing(cls) -> AsyncIterator["Ground"]:
        """Start everything; it is gone after the context."""
        async with contextlib.AsyncExitStack() as exits:
            stack = await exits.enter_async_context(Stack.running(dead_man=_DEAD_MAN))
            python = await asyncio.to_thread(_write, stack)
            await stack.workload_api.register(Entry(_BENCH_ID, str(python)))
            token = await _set_up(stack)
            daemon = await exits.enter_async_context(stack.daemon())
            directory = stack.paths.directory
            proxy = await exits.enter_async_context(bao_proxy(directory, stack.bao.address, token))
            load = await exits.enter_async_context(Load.running(python, _where(stack, token)))
            yield cls(
                stack=stack,
                load=load,
                python=python,
                daemon_pid=daemon.pid,
                proxy_pid=proxy.pid,
                bao_pid=pid_of(bao_binary().resolve(), f"-config={stack.bao.directory}/server.hcl"),
                postgres_pid=await asyncio.to_thread(_postmaster, stack),
            )


def _postmaster(stack: Stack) -> int:
    file = stack.postgres.directory / "data" / "postmaster.pid"
    return int(file.read_text().split()[0])


def _write(stack: Stack) -> Path:
    """Add our definitions, and raise the limits that a load generator would meet."""
    more = definitions(_BENCH_ID, f"{int(_DEAD_MAN.total_seconds())}s", f"creds/{_ROLE}", "tasks")
    (stack.paths.policy / "bench.yaml").write_text(_POLICY + more)
    config: dict[str, Any] = json.loads(stack.paths.config.read_text())
    config["limits"] = {
        "tasks_per_identity": 10_000,
        "starts_per_minute": 1_000_000,
        "starts_per_minute_per_identity": 1_000_000,
    }
    stack.paths.config.write_text(json.dumps(config, indent=2))
    return copied_interpreter(stack.paths.directory / "exe" / "bench")


async def _set_up(stack: Stack) -> Secret[str]:
    """Apply the plan, and make the token that the peers use: the daemon's rights and two more."""
    async with stack.admin() as bao:
        await set_up_task_connection(bao, stack.postgres)
        await bao.call("POST", f"sys/mounts/{NOTES}", {"type": "kv"})
        await bao.call("POST", f"{NOTES}/{NOTE}", {"text": "x"})
    await stack.apply()
    async with stack.admin() as bao:
        nothing = 'path "sys/health" { capabilities = ["read"] }'
        await bao.call("POST", f"sys/policies/acl/{_HANDED_OUT}", {"policy": nothing})
        await bao.call("POST", f"sys/policies/acl/{_TWO_CALL}", {"policy": _STANDING_RIGHTS})
        role = {
            "orphan": True,
            "allowed_policies": [_HANDED_OUT],
            "token_no_default_policy": True,
            "token_period": int(_DEAD_MAN.total_seconds()),
        }
        await bao.call("POST", f"auth/token/roles/{_TWO_CALL}", role)
        standing = {
            "policies": [DAEMON_POLICY, _TWO_CALL],
            "no_default_policy": True,
            "no_parent": True,
            "ttl": "4h",
        }
        made = await bao.call("POST", "auth/token/create", standing)
        return Secret(made.body["auth"]["client_token"])


def _where(stack: Stack, token: Secret[str]) -> dict[str, Any]:
    """Tell the generator where everything is; it goes through a pipe."""
    return {
        "vault": stack.bao.address.removeprefix("http://"),
        "proxy": str(stack.paths.directory / "proxy.sock"),
        "daemon": str(stack.paths.task_socket),
        "workload_api": stack.workload_api.endpoint,
        "token": token.reveal(),
        "kinds": [asdict(kind) for kind in (*KINDS, *kinds(KINDS[0]))],
    }
