"""Vault: is it there, unsealed and on time; and, without a daemon to ask, is the plan applied."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import structlog

from taskmint.clock import SystemClock
from taskmint.config import Config
from taskmint.daemon.vault_client import vault_client
from taskmint.errors import BackendFailed, Code, ConfigError, TaskmintError, Unavailable
from taskmint.identity.workload_api import WorkloadApi
from taskmint.policy.plan_objects import Plan
from taskmint.vault.http import Transport
from taskmint.vault.settings import VaultSettings

from .report import Diagnosis, failure, fine, note, of_error, warning

_AREA: Final = "vault"
_LONGEST_SKEW: Final = 5.0
_SECONDS: Final = 3.0
# Standby and sealed servers answer 200 as well, so that the answer is read and not guessed at.
_HEALTH: Final = "sys/health?standbyok=true&perfstandbyok=true&sealedcode=200&uninitcode=200"


async def check_server(settings: VaultSettings) -> AsyncIterator[Diagnosis]:
    """Ask for the server's health, without a token."""
    try:
        async with Transport(settings) as transport:
            reply = await transport.send("GET", _HEALTH, None, None)
    except Unavailable as error:
        yield failure(_AREA, error.detail, error.fix)
        return
    except ConfigError as error:
        for one in of_error(_AREA, error):
            yield one
        return
    body = reply.body or {}
    if not body.get("initialized"):
        fix = "check vault.address: it is no Vault, or one that nobody has initialised"
        yield failure(_AREA, f"{settings.address} is no Vault that is ready to be used", fix)
        return
    if body.get("sealed"):
        fix = "unseal it: vault operator unseal, or bao operator unseal"
        yield failure(_AREA, f"{settings.address} is sealed", fix)
        return
    yield fine(_AREA, f"{settings.address} answers, version {body.get('version')}")
    theirs = body.get("server_time_utc")
    if isinstance(theirs, int) and abs(theirs - time.time()) > _LONGEST_SKEW:
        what = f"Vault's clock and ours differ by {abs(theirs - time.time()):.0f} s"
        yield warning("clocks", what, "synchronise both: logins and SVIDs are judged by them")


async def check_rights(config: Config, plan: Plan) -> AsyncIterator[Diagnosis]:
    """Log in as the daemon does and compare its rights with the plan; the token is given back."""
    try:
        async with WorkloadApi(
            config.identity.workload_api, SystemClock(), agent_uid=config.identity.agent_uid
        ) as api:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await api.first_bundles()
            log = structlog.stdlib.get_logger()
            async with vault_client(config, plan, api, log) as vault:
                problem, wider, unapplied = vault.ready(), vault.wider(), vault.unapplied()
    except Unavailable as error:
        if error.code is Code.RIGHTS_TOO_WIDE:
            yield failure(_AREA, error.detail, error.fix)
        else:
            yield note(_AREA, f"no login as the daemon: {error.detail}", _NO_LOGIN)
        return
    except (BackendFailed, TaskmintError) as error:
        yield note(_AREA, f"no login as the daemon: {error.detail}", _NO_LOGIN)
        return
    if problem is not None:
        yield note(_AREA, f"no login as the daemon: {problem}", _NO_LOGIN)
        return
    for one in against_plan(wider, unapplied):
        yield one


_NO_LOGIN: Final = "run taskmint doctor as the daemon's user, or taskmint vault check as an admin"


def against_plan(wider: tuple[str, ...], unapplied: frozenset[str]) -> list[Diagnosis]:
    """The daemon's rights, held against the plan of the policy."""
    found = [
        failure(_AREA, f"wider than the plan: {one}", "run taskmint vault check, then vault apply")
        for one in wider
    ]
    if unapplied:
        names = ", ".join(sorted(unapplied))
        what = f"Vault lacks what these definitions need: {names}"
        found.append(failure(_AREA, what, "run taskmint vault plan, then taskmint vault apply"))
    return found or [fine(_AREA, "the daemon's rights are exactly the plan")]
