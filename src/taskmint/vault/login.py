"""
How the daemon gets its own token: each method a callable that logs in once.

JWT auth and cert auth have no secret zero: the SVID is fetched anew each time. AppRole and a token
from a file (a systemd credential) are for places without; what they hold is read anew each time,
so that replacing the file is enough.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from hvac.api.auth_methods import JWT, AppRole
from hvac.api.auth_methods import Token as TokenApi

from taskmint.errors import Code, TaskmintError, Unavailable
from taskmint.model.secret import Secret

from .http import ClientCertificate, Door, Permits, Transport
from .responses import Meaning, Reply, cut, failure
from .settings import AppRoleLogin, CertLogin, JwtLogin, TokenFileLogin, VaultSettings

FetchSvid: TypeAlias = Callable[[], Awaitable[Secret[str]]]
FetchCertificate: TypeAlias = Callable[[], Awaitable[ClientCertificate]]

# A token without an end (root, in a lab) is looked at again after this many seconds.
_NO_END: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Granted:
    """
    What a login gave. `life` is in seconds, from when it was asked for.

    A token that is not `renewable` is replaced by a new login instead. `ours` says that it was
    made for this run, so that it is revoked at the end.
    """

    token: Secret[str]
    life: float
    renewable: bool = True
    ours: bool = True


# What cert auth says, with a 500, to a certificate without a common name (OpenBao 2.7.2).
_NO_COMMON_NAME: Final = "missing name in alias"

LogIn: TypeAlias = Callable[[], Awaitable[Granted]]


def login_method(
    transport: Transport,
    settings: VaultSettings,
    fetch_svid: FetchSvid,
    fetch_certificate: FetchCertificate,
) -> LogIn:
    """Choose by the settings; JWT auth asks for the one SVID, cert auth for the other."""
    match settings.login:
        case CertLogin() as login:
            return cert_login(settings, login, fetch_certificate)
        case JwtLogin() as login:
            return jwt_login(transport, login, fetch_svid)
        case AppRoleLogin() as login:
            return approle_login(transport, login)
        case TokenFileLogin() as login:
            return token_file_login(transport, login)


async def no_certificate() -> ClientCertificate:
    """Say that there is no X.509-SVID: what cert auth gets from a daemon that fetches none."""
    raise Unavailable(
        Code.IDENTITY_UNAVAILABLE,
        "the Workload API has given the daemon no X.509-SVID",
        fix="see that the agent runs and that the daemon's entry exists",
        created_nothing=True,
    )


def jwt_login(transport: Transport, login: JwtLogin, fetch_svid: FetchSvid) -> LogIn:
    """Log in with the daemon's own JWT-SVID (API: auth/jwt/login)."""

    async def log_in() -> Granted:
        svid = await fetch_svid()
        api = JWT(Door(transport, None, _only(f"auth/{login.mount}/login")))
        reply: Reply = await api.jwt_login(
            role=login.role, jwt=svid.reveal(), use_token=False, path=login.mount
        )
        return granted(
            reply,
            f"auth/{login.mount}, role {login.role}",
            "compare the role's bound subject and audience with the daemon's SVID, "
            "and the method's keys with the trust domain's",
        )

    return log_in


def cert_login(
    settings: VaultSettings, login: CertLogin, fetch_certificate: FetchCertificate
) -> LogIn:
    """
    Log in with the X.509-SVID over mutual TLS (API: auth/cert/login).

    On a connection of its own, since the SVID is another one each time. Vault binds a renewal to
    the certificate, so there is none: a new login replaces the token at a third of its life.
    """

    async def log_in() -> Granted:
        certificate = await fetch_certificate()
        try:
            async with Transport(settings, certificate) as transport:
                door = Door(transport, None, _only(f"auth/{login.mount}/login"))
                reply: Reply = await door.post(
                    f"/v1/auth/{login.mount}/login", json={"name": login.role}
                )
        except ValueError as error:
            raise _refused(f"auth/{login.mount}", str(error), "see what the agent gives") from None
        return granted(
            reply,
            f"auth/{login.mount}, role {login.role}",
            "compare the role's allowed_uri_sans and certificate with the daemon's X.509-SVID, "
            "which needs a common name",
            renewable=False,
        )

    return log_in


def approle_login(transport: Transport, login: AppRoleLogin) -> LogIn:
    """Log in with a role id and the secret id that a file holds (API: auth/approle/login)."""

    async def log_in() -> Granted:
        secret_id = await _read(login.secret_id_file)
        api = AppRole(Door(transport, None, _only(f"auth/{login.mount}/login")))
        reply: Reply = await api.login(
            role_id=login.role_id,
            secret_id=secret_id.reveal(),
            use_token=False,
            mount_point=login.mount,
        )
        return granted(
            reply, f"auth/{login.mount}", f"see that {login.secret_id_file} holds a valid secret id"
        )

    return log_in


def token_file_login(transport: Transport, login: TokenFileLogin) -> LogIn:
    """Take the token that a file holds; it is somebody else's to make and to revoke."""

    async def log_in() -> Granted:
        token = await _read(login.file)
        door = Door(transport, token, _only("auth/token/lookup-self", "GET"))
        reply: Reply = await TokenApi(door).lookup_self()
        if reply.meaning is Meaning.DENIED:
            raise Unavailable(
                Code.VAULT_UNAVAILABLE,
                f"Vault refuses the token in {login.file}",
                fix="put a living token there",
                created_nothing=True,
            )
        if reply.meaning is not Meaning.DONE:
            raise failure(reply, "looking up the daemon's own token")
        data = reply.part("data")
        ttl = data.get("ttl")
        life = float(ttl) if isinstance(ttl, int) and ttl > 0 else _NO_END
        renewable = data.get("renewable") is True and life != _NO_END
        return Granted(token, life, renewable, ours=False)

    return log_in


def granted(reply: Reply, where: str, fix: str, *, renewable: bool = True) -> Granted:
    """Read the answer to a login. Raises Unavailable, BackendFailed."""
    refused = reply.meaning in {Meaning.REFUSED, Meaning.DENIED}
    if refused or _NO_COMMON_NAME in (reply.errors or ()):
        raise _refused(where, cut("; ".join(reply.errors or ())), fix)
    if reply.meaning is not Meaning.DONE:
        raise failure(reply, "logging in")
    auth = reply.part("auth")
    token, life = auth.get("client_token"), auth.get("lease_duration")
    if not isinstance(token, str) or not isinstance(life, int) or life <= 0:
        raise Unavailable(Code.VAULT_UNAVAILABLE, "Vault's login gave no token that expires")
    return Granted(Secret(token), float(life), renewable and auth.get("renewable") is not False)


def _refused(where: str, said: str, fix: str) -> TaskmintError:
    return Unavailable(
        Code.VAULT_UNAVAILABLE,
        f"Vault refuses the daemon's login at {where}: {said}",
        fix=fix,
        created_nothing=True,
    )


def _only(path: str, method: str = "POST") -> Permits:
    def permits(verb: str, asked: str, body: object) -> bool:
        del body
        return (verb, asked) == (method, path)

    return permits


async def _read(file: Path) -> Secret[str]:
    """Read one word from a file, now. Raises Unavailable."""
    try:
        text = (await asyncio.to_thread(file.read_text, "ascii")).strip()
    except (OSError, ValueError):
        text = ""
    if not text or not text.isprintable():
        raise Unavailable(
            Code.VAULT_UNAVAILABLE,
            f"{file} holds nothing to log in to Vault with",
            fix="see that the file exists, is readable by the daemon, and holds one line",
            created_nothing=True,
        )
    return Secret(text)
