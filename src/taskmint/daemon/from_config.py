"""The config's sections to what each part takes: the one place where their names meet."""

import grp
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from taskmint.api.connection import Timeouts
from taskmint.api.listener import ListenerLimits
from taskmint.api.roles import Members, Role
from taskmint.config import Config, RoleMembers, VaultAuthSettings
from taskmint.errors import Code, TaskmintError
from taskmint.identity.jwt_svid import JwtRules
from taskmint.identity.token_owners import OwnerRules
from taskmint.model.caller import TokenBinding
from taskmint.tasks.limits import TaskLimits
from taskmint.tasks.outside import Settings
from taskmint.vault.settings import (
    AppRoleLogin,
    CertLogin,
    JwtLogin,
    Login,
    TokenFileLogin,
    VaultSettings,
)

ROOT = 0


def vault_login(auth: VaultAuthSettings) -> Login:
    """How the daemon gets its own token; the config has checked what belongs together."""
    if auth.method == "approle" and auth.role_id and auth.secret_id_file:
        return AppRoleLogin(auth.role_id, Path(auth.secret_id_file), auth.mount or auth.method)
    if auth.method == "token" and auth.token_file:
        return TokenFileLogin(Path(auth.token_file))
    if auth.method == "cert":
        return CertLogin(auth.mount or auth.method, auth.role)
    return JwtLogin(auth.mount or auth.method, auth.role)


def vault_settings(config: Config) -> VaultSettings:
    """How to reach Vault."""
    vault = config.vault
    return VaultSettings(
        address=vault.address,
        login=vault_login(vault.auth),
        namespace=vault.namespace,
        ca_file=Path(vault.ca_file) if vault.ca_file else None,
        timeout=vault.timeout,
        drift_grace=vault.drift_grace,
        drift_interval=vault.drift_interval,
        max_connections=vault.max_connections,
        unsafe_allow_wide_rights=vault.unsafe_allow_wide_rights,
    )


def jwt_rules(config: Config) -> JwtRules:
    """What a JWT-SVID must be beyond well signed."""
    identity = config.identity
    return JwtRules(
        audience=identity.audience,
        leeway=int(identity.leeway.total_seconds()),
        max_lifetime=int(identity.max_lifetime.total_seconds()),
        max_bytes=identity.max_token_bytes,
    )


def owner_rules(config: Config) -> OwnerRules:
    """What a JWT-SVID belongs to once it was presented."""
    identity = config.identity
    return OwnerRules(
        binding=TokenBinding(identity.token),
        leeway=int(identity.leeway.total_seconds()),
        single_use=identity.single_use_jti,
    )


def task_settings(config: Config, node: str, boot_id: str) -> Settings:
    """Limits and labels for the life of tasks."""
    limits = config.limits
    return Settings(
        node=node,
        boot_id=boot_id,
        host=dict(config.node.labels),
        limits=TaskLimits(
            tasks=limits.tasks,
            tasks_per_identity=limits.tasks_per_identity,
            starts_per_minute=limits.starts_per_minute,
            starts_per_minute_per_identity=limits.starts_per_minute_per_identity,
            mints_in_flight=limits.mints_in_flight,
            unproven_revocations=limits.unproven_revocations,
            pending=limits.pending,
            pending_per_identity=limits.pending_per_identity,
        ),
    )


def door(config: Config) -> str:
    """By which name systemd passes the socket that callers use."""
    return "breakglass" if config.break_glass else "task"


_SPARE_DESCRIPTORS: Final[Mapping[str, int]] = {"task": 32, "admin": 16}


def listener_limits(config: Config, door: str) -> ListenerLimits:
    """What connections may cost; operators still come in where callers do not."""
    limits = config.limits
    return ListenerLimits(
        descriptors_spare=_SPARE_DESCRIPTORS[door],
        connections=limits.connections,
        connections_per_uid=limits.connections_per_uid,
        drain=config.shutdown_timeout.total_seconds(),
        timeouts=Timeouts(
            header=limits.header_timeout.total_seconds(),
            request=limits.request_timeout.total_seconds(),
            idle=limits.idle_timeout.total_seconds(),
        ),
    )


def roles(config: Config) -> Mapping[Role, Members]:
    """
    Who holds which role; root is an auditor without being named, and nothing else.

    Raises TaskmintError(config_invalid) for a group that does not exist.
    """
    named = config.admin.roles
    auditors = _members("auditor", named.auditor)
    return {
        Role.OPERATOR: _members("operator", named.operator),
        Role.APPROVER: _members("approver", named.approver),
        Role.AUDITOR: Members(auditors.uids | {ROOT}, auditors.gids),
    }


def _members(role: str, named: RoleMembers) -> Members:
    return Members(frozenset(named.uids), frozenset(_gid(role, name) for name in named.groups))


def _gid(role: str, name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise TaskmintError(
            Code.CONFIG_INVALID,
            f"admin.roles.{role}.groups: there is no group {name}",
            fix=f"run groupadd --system {name}, or leave it out",
        ) from None
