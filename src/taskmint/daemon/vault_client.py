"""The config's Vault and the agent's SVIDs to the one client that talks to Vault."""

import structlog

from taskmint.config import Config
from taskmint.identity.workload_api import WorkloadApi
from taskmint.model.secret import Secret
from taskmint.policy.plan_objects import Plan
from taskmint.vault.client import VaultClient
from taskmint.vault.http import ClientCertificate
from taskmint.vault.login import no_certificate
from taskmint.vault.stopwatch import UNWATCHED, Stopwatch

from .from_config import vault_settings


def vault_client(
    config: Config,
    plan: Plan,
    agent: WorkloadApi,
    log: structlog.stdlib.BoundLogger,
    *,
    stopwatch: Stopwatch = UNWATCHED,
) -> VaultClient:
    """Return the client, to be entered; it logs in as the config says, with the agent's SVIDs."""

    async def own_svid() -> Secret[str]:
        return (await agent.fetch_jwt_svid(config.vault.auth.audience)).token

    async def own_certificate() -> ClientCertificate:
        own = agent.trust.own
        return ClientCertificate(own.chain, own.key) if own else await no_certificate()

    return VaultClient(
        vault_settings(config), plan, own_svid, log, own_certificate, stopwatch=stopwatch
    )
