"""
The values that stand in a config file: what each kind of text must look like.

Checks of form only; whether a path or an address leads anywhere is found out at start.
"""

import re
from ipaddress import ip_address
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from .model.spiffe import SpiffeId
from .model.task_id import is_node_id
from .yaml_model import FullMatch, Integer, NonEmpty, Text, refusal

_MAX_SOCKET_PATH: Final = 107  # sun_path has 108 bytes and ends with a NUL (unix(7))
_MAX_PORT: Final = 65535
_UNIX_ADDRESS = re.compile(r"unix:///[A-Za-z0-9._/-]{1,106}", re.ASCII)
_HTTP_ADDRESS = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)
_WEBHOOK = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~%/?&=-]{0,1024})?",
    re.ASCII,
)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise refusal("must be an absolute path", "begin it with a slash")
    return path


def _socket(path: str) -> str:
    if len(_absolute(path).encode()) > _MAX_SOCKET_PATH:
        raise refusal(f"is longer than {_MAX_SOCKET_PATH} bytes", "choose a shorter path")
    return path


def _node_id(text: str) -> str:
    if not is_node_id(text):
        raise refusal(
            "must be at most 20 lower-case letters, digits and inner dashes",
            "write for example web-1",
        )
    return text


def _trust_domain(text: str) -> str:
    try:
        named = SpiffeId.parse(f"spiffe://{text}")
    except ValueError:
        named = None
    if named is None or named.path or named.trust_domain != text:
        raise refusal("is not a trust domain", "write for example prod.example.org, lower-case")
    return text


def _workload_api(text: str) -> str:
    if not text.startswith("unix:/"):
        raise refusal("must be a Unix socket", "write unix:///run/spire/agent/api.sock")
    _socket(text.removeprefix("unix:").removeprefix("//"))
    return text


def _spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except ValueError as error:
        raise refusal(str(error), "write for example spiffe://example.org/taskmint") from None


def _vault_address(text: str) -> str:
    if _UNIX_ADDRESS.fullmatch(text):
        return text
    match = _HTTP_ADDRESS.fullmatch(text)
    if not match or int(match["port"] or 0) > _MAX_PORT:
        raise refusal(
            "must be https://HOST:PORT, http:// on loopback, or unix:///PATH",
            "write https://vault.example.org:8200",
        )
    if match["scheme"] == "http" and not _is_loopback(match["host"].strip("[]")):
        raise refusal("would send tokens in clear", "write https://, or a loopback address")
    return text.rstrip("/")


def _webhook_address(text: str) -> str:
    match = _WEBHOOK.fullmatch(text)
    if not match or int(match["port"] or 0) > _MAX_PORT:
        raise refusal(
            "must be https://HOST/PATH, or http:// on loopback",
            "write https://chat.example.org/hooks/taskmint",
        )
    if match["scheme"] == "http" and not _is_loopback(match["host"].strip("[]")):
        raise refusal("would be sent in clear", "write https://, or a loopback address")
    return text


def _loopback_listener(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not (_is_loopback(host.strip("[]")) and _PORT.fullmatch(port) and int(port) <= _MAX_PORT):
        raise refusal("must be a loopback address and a port", 'write "127.0.0.1:9464"')
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


AbsolutePath = Annotated[Text, AfterValidator(_absolute)]
Socket = Annotated[Text, AfterValidator(_socket)]
Label = Annotated[
    str,
    FullMatch("[a-z][a-z0-9_]{0,31}", "write lower-case letters, digits, underscores"),
]
ClassName = Annotated[
    str,
    FullMatch("[a-z][a-z0-9-]{0,31}", "write lower-case letters, digits, dashes"),
]
MountPath = Annotated[
    Text,
    FullMatch("[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", "write the path without outer slashes"),
]
Count = Annotated[Integer, Field(ge=1, le=1_000_000)]


UserId = Annotated[Integer, Field(ge=0, le=2**32 - 2)]
_PRINCIPAL: Final = FullMatch(
    "[A-Za-z0-9][A-Za-z0-9._@-]{0,127}", "write a name as policies do, without user: or group:"
)
PrincipalName = Annotated[str, _PRINCIPAL]
GroupName = Annotated[Text, _PRINCIPAL]
WebhookAddress = Annotated[Text, AfterValidator(_webhook_address)]
NodeId = Annotated[Text, AfterValidator(_node_id)]
TrustDomain = Annotated[Text, AfterValidator(_trust_domain)]
WorkloadApi = Annotated[Text, AfterValidator(_workload_api)]
WorkloadId = Annotated[Text, AfterValidator(_spiffe_id)]
VaultAddress = Annotated[Text, AfterValidator(_vault_address)]
LoopbackListener = Annotated[Text, AfterValidator(_loopback_listener)]
Word = Annotated[Text, NonEmpty]
