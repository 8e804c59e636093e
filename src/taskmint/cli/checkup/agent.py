"""The SPIFFE agent: does it answer, and whom does it take us for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from taskmint.clock import SystemClock
from taskmint.config import Config
from taskmint.errors import TaskmintError, Unavailable
from taskmint.identity.workload_api import Absence, WorkloadApi

from .report import Diagnosis, failure, fine, note, warning

_AREA: Final = "identity"
_LOOKS: Final = 60  # three seconds
_LOOK_SECONDS: Final = 0.05
_UNTRUSTED: Final = (
    "let the agent's socket and the way to it belong to root or to identity.agent_uid, and let"
    " nobody else write to its directories"
)


async def check_agent(config: Config, *, daemon_runs: bool) -> AsyncIterator[Diagnosis]:
    """
    Ask the Workload API as whoever runs this command.

    The agent may rightly know the daemon and not us: then only the running daemon can tell.
    """
    try:
        async with WorkloadApi(
            config.identity.workload_api, SystemClock(), agent_uid=config.identity.agent_uid
        ) as api:
            if reason := await _why_without_bundles(api):
                yield _without_bundles(reason, api.absence(), daemon_runs=daemon_runs)
                return
            yield fine(_AREA, f"the agent vouches for {len(api.trust.jwt)} trust domains")
            try:
                own = await api.fetch_jwt_svid(config.vault.auth.audience)
            except Unavailable as error:
                yield note(_AREA, error.detail, _AS_DAEMON)
                return
            wanted = config.vault.auth.spiffe_id
            if wanted is not None and str(own.spiffe_id) != wanted and not daemon_runs:
                what = f"the agent takes us for {own.spiffe_id}, not for {wanted}"
                yield note(_AREA, what, _AS_DAEMON)
    except TaskmintError as error:
        yield failure(_AREA, error.detail, error.fix)


_AS_DAEMON: Final = "run taskmint doctor as the daemon's user, or see `taskmint status`"


async def _why_without_bundles(api: WorkloadApi) -> str | None:
    """Wait a little for bundles; that there is no agent, or that it refuses, is an answer too."""
    for _ in range(_LOOKS):
        if api.absence() is not Absence.SILENT:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    return api.ready()


def _without_bundles(reason: str, absence: Absence | None, *, daemon_runs: bool) -> Diagnosis:
    if absence is Absence.UNTRUSTED:
        return failure(_AREA, reason, _UNTRUSTED)
    if absence is Absence.REFUSED:
        fix = f"register the daemon with the agent; {_AS_DAEMON}"
        what = "the agent refuses whoever runs this command an identity"
        return note(_AREA, what, fix) if daemon_runs else warning(_AREA, what, fix)
    fix = "start the SPIFFE agent, and check identity.workload_api or SPIFFE_ENDPOINT_SOCKET"
    return failure(_AREA, reason, fix)
