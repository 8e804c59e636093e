"""How to reach Vault and log in, as plain values; the daemon fills them from its config."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class JwtLogin:
    """JWT auth: `mount` below auth/, the role there. The SVID itself comes from a callable."""

    mount: str = "jwt"
    role: str = "taskmint"


@dataclass(frozen=True, slots=True)
class CertLogin:
    """TLS certificate auth with the X.509-SVID; `role` is the certificate role's name."""

    mount: str = "cert"
    role: str = "taskmint"


@dataclass(frozen=True, slots=True)
class AppRoleLogin:
    """AppRole, where there is no SVID: the role id is no secret, the secret id is in a file."""

    role_id: str
    secret_id_file: Path
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class TokenFileLogin:
    """A token that somebody else makes and puts into a file, for instance a systemd credential."""

    file: Path


Login: TypeAlias = JwtLogin | CertLogin | AppRoleLogin | TokenFileLogin


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """
    `address` is https://, http:// or unix:///PATH; `ca_file` pins the CA, else the system's.

    `timeout` bounds each call. `drift_grace` is how long new tasks go on after rights were found
    wider than the plan; `drift_interval` is between two looks. `max_connections` bounds the calls
    in flight; one mount gets at most half of it for making and a quarter for taking back.
    """

    address: str
    login: Login = JwtLogin()
    namespace: str | None = None
    ca_file: Path | None = None
    timeout: timedelta = timedelta(seconds=30)
    drift_grace: timedelta = timedelta(minutes=15)
    drift_interval: timedelta = timedelta(hours=1)
    max_connections: int = 64
    unsafe_allow_wide_rights: bool = False
