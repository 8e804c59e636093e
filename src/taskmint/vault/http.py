"""
One aiohttp session in, hvac's API made awaitable out: hvac returns what its adapter returns.

No redirect is followed, no proxy or token is taken from the environment or a file, nothing is
sent twice, and an answer has a size and a deadline. What may be asked is decided by a predicate
for each token, before anything else happens.
"""

import asyncio
import base64
import json
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeAlias, cast

import aiohttp
from hvac.adapters import Adapter
from yarl import URL

from taskmint.errors import BackendFailed, Code, ConfigError, Finding, Unavailable
from taskmint.model.scope import Json
from taskmint.model.secret import Secret
from taskmint.ports import UNTRACED

from .responses import Reply
from .settings import VaultSettings

Permits: TypeAlias = Callable[[str, str, Mapping[str, Json] | None], bool]

MAX_REPLY_BYTES: Final = 1 << 20
MAX_LIST_BYTES: Final = 1 << 24  # a revocation list grows with what a mount ever revoked
_CONNECT_SECONDS: Final = 10.0
_KEEP_ALIVE_SECONDS: Final = 60.0
# Vault Enterprise names the state that a write led to; sent along, a node that is behind says so.
_INDEX: Final = "X-Vault-Index"
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_SPARE_CONNECTIONS: Final = 4  # the daemon's own login and renewal never wait behind tasks


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A DER chain, leaf first, and its key as PKCS #8 DER."""

    chain: tuple[bytes, ...]
    key: Secret[bytes] = field(repr=False)


class OutsidePlan(BackendFailed):
    """Raised instead of sending a request that the policy's plan does not hold: a bug of ours."""

    def __init__(self, method: str, path: str) -> None:
        super().__init__(
            Code.INTERNAL_ERROR,
            f"{method} {path!a} is outside the plan and was not sent",
            created_nothing=True,
        )


class _LostReply(aiohttp.ClientError):
    """Raised when a connection broke after the request may have been sent."""


class Transport:
    """
    Sends one request and reads one answer, over pooled connections to one address.

    Raises Unavailable(vault_unavailable) with `created_nothing` only when nothing was sent.
    """

    def __init__(
        self,
        settings: VaultSettings,
        certificate: ClientCertificate | None = None,
        *,
        outgoing: Callable[[], Mapping[str, str]] = UNTRACED.outgoing,
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._certificate = certificate
        self._session: aiohttp.ClientSession | None = None
        self._index: str | None = None
        unix = settings.address.startswith("unix://")
        self._base = ("http://localhost" if unix else settings.address.rstrip("/")) + "/v1/"

    async def __aenter__(self) -> Self:
        """Open the pool; nothing is connected yet. Raises ConfigError for an unfit CA file."""
        settings = self._settings
        limit = settings.max_connections + _SPARE_CONNECTIONS
        if settings.address.startswith("unix://"):
            path = settings.address.removeprefix("unix://")
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(
                path, limit=limit, keepalive_timeout=_KEEP_ALIVE_SECONDS
            )
        else:
            tls: ssl.SSLContext | bool = True
            if settings.address.startswith("https://"):
                tls = await asyncio.to_thread(tls_context, settings.ca_file, self._certificate)
            connector = aiohttp.TCPConnector(
                ssl=tls, limit=limit, keepalive_timeout=_KEEP_ALIVE_SECONDS
            )
        headers = {"X-Vault-Request": "true"}
        if settings.namespace:
            headers["X-Vault-Namespace"] = settings.namespace
        seconds = settings.timeout.total_seconds()
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            middlewares=(_once,),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Json] | None,
        token: Secret[str] | None,
        *,
        largest: int = MAX_REPLY_BYTES,
    ) -> Reply:
        """
        Send; `path` is below /v1/ and safe in a URL. Raises Unavailable, as said above.

        Of a body of more than `largest` bytes nothing is read.
        """
        if self._session is None:
            raise Unavailable(
                Code.SHUTTING_DOWN, "the way to Vault is closed", created_nothing=True
            )
        headers = dict(self._outgoing())
        if token is not None:
            headers["X-Vault-Token"] = token.reveal()
        if self._index is not None:
            headers[_INDEX] = self._index
        data = None
        if body is not None:
            data = _ENCODER.encode(body).encode()
            headers["Content-Type"] = "application/json"
        if method == "LIST":
            method, path = "GET", f"{path}?list=true"
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.request(
                method, url, data=data, headers=headers, allow_redirects=False
            ) as response:
                self._index = response.headers.get(_INDEX, self._index)
                return Reply(response.status, response.headers, await _object(response, largest))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # includes a TLS handshake that failed: no byte of the request left
            raise _away(type(error).__name__, created_nothing=True) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _away(type(error).__name__, created_nothing=False) from None


class Door(Adapter):  # type: ignore[misc]  # hvac ships no types
    """
    One token's way to the server: what hvac's API classes are built on.

    Light, one for each token: `Token(door).create(...)` is awaited for its Reply. hvac's own
    constructor is not called, since it would open a second, blocking session.
    """

    def __init__(
        self,
        transport: Transport,
        token: Secret[str] | None,
        permits: Permits,
        *,
        largest: int = MAX_REPLY_BYTES,
    ) -> None:
        self._transport = transport
        self._token = token
        self._permits = permits
        self._largest = largest

    async def request(
        self,
        method: str,
        url: str,
        headers: None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> Reply:
        """
        Send what the plan permits. Raises OutsidePlan and Unavailable; errors come as replies.

        Of requests' many arguments hvac uses `json` here, and `wrap_ttl`, which is not offered.
        """
        del headers, raise_exception
        body = cast("Mapping[str, Json] | None", kwargs.get("json"))
        if kwargs.get("wrap_ttl") is not None:
            raise TypeError("response wrapping is not used")
        verb, path = method.upper(), url.removeprefix("/v1/")
        if not self._permits(verb, path, body):
            raise OutsidePlan(verb, path)
        return await self._transport.send(verb, path, body, self._token, largest=self._largest)

    async def login(self, url: str, use_token: bool = False, **kwargs: Any) -> Reply:
        """Send a login; this adapter keeps no token of it."""
        del use_token
        return await self.request("post", url, **kwargs)

    def get_login_token(self, response: object) -> NoReturn:
        """Nobody asks: `login` keeps no token."""
        raise NotImplementedError


def tls_context(ca_file: Path | None, certificate: ClientCertificate | None) -> ssl.SSLContext:
    """
    Make a client context with the given CA, else the system's; SSL_CERT_FILE is not read.

    Raises ConfigError(config_invalid) for a CA file that cannot be read or holds no certificate,
    ValueError for a certificate of ours that will not do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        _present(context, certificate)
    if ca_file is not None:
        _trust(context, ca_file)
        return context
    paths = ssl.get_default_verify_paths()
    if Path(paths.openssl_cafile).is_file():
        context.load_verify_locations(cafile=paths.openssl_cafile)
    if Path(paths.openssl_capath).is_dir():
        context.load_verify_locations(capath=paths.openssl_capath)
    return context


def _trust(context: ssl.SSLContext, ca_file: Path) -> None:
    try:
        if not ca_file.is_file():  # opening what is none, a pipe for example, may take for ever
            problem = "is not a regular file" if ca_file.exists() else "does not exist"
            raise _config(ca_file, problem)
        context.load_verify_locations(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise _config(ca_file, f"holds no certificate that can be read ({error.reason})") from None
    except OSError as error:
        raise _config(ca_file, f"cannot be read: {error.strerror}") from None


def _config(ca_file: Path, problem: str) -> ConfigError:
    fix = "name a PEM file with the certificates of Vault's CA"
    finding = Finding(str(ca_file), 1, 1, "vault.ca_file", problem, fix)
    return ConfigError(Code.CONFIG_INVALID, (finding,))


def _present(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    """Load a certificate and its key through memory that has no name on any disk."""
    words = base64.encodebytes(certificate.key.reveal()).decode()
    text = "".join(map(ssl.DER_cert_to_PEM_cert, certificate.chain))
    text += f"-----BEGIN PRIVATE KEY-----\n{words}-----END PRIVATE KEY-----\n"
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError:
        raise ValueError("the X.509-SVID and its key do not fit") from None
    finally:
        os.close(descriptor)


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """
    Keep aiohttp from sending a GET, PUT or DELETE again when a kept connection breaks.

    For Vault a GET can make things; a second one would make two.
    """
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _LostReply from error


async def _object(response: aiohttp.ClientResponse, largest: int) -> Mapping[str, Json] | None:
    """Read a JSON object of at most `largest` bytes, or nothing; a longer body is cut off."""
    length = response.content_length
    if length is not None and length > largest:
        response.close()
        return None
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > largest:
            response.close()
            return None
        chunks.append(chunk)
    try:
        value = json.loads(b"".join(chunks))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _away(what: str, *, created_nothing: bool) -> Unavailable:
    detail = "cannot be reached" if created_nothing else "did not answer as it should"
    return Unavailable(
        Code.VAULT_UNAVAILABLE,
        f"Vault {detail} ({what})",
        fix="see that Vault runs at vault.address and that its certificate is trusted",
        created_nothing=created_nothing,
    )
