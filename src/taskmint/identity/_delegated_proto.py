"""
What we use of SPIRE's Delegated Identity API: one method, and the messages on its way.

Reproduced from github.com/spiffe/spire-api-sdk at adb81b3b0fb8 (Apache-2.0), files
proto/spire/api/agent/delegatedidentity/v1/delegatedidentity.proto and
proto/spire/api/types/{spiffeid,x509svid}.proto, because no wheel carries them. Left out on purpose:
the request's `selectors`, so that we can only ask about a process and never claim what it is; and
the answer's private keys, which are dropped unread.
"""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf import (  # type: ignore[import-untyped] # protobuf ships no types
    descriptor_pb2,
    descriptor_pool,
    message_factory,
)

from ._workload_proto import grpc

_PACKAGE: Final = "spire.api.agent.delegatedidentity.v1"
_METHOD: Final = f"/{_PACKAGE}.DelegatedIdentity/SubscribeToX509SVIDs"
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_INT32, _INT64 = _FIELD.TYPE_INT32, _FIELD.TYPE_INT64
_BYTES, _STRING = _FIELD.TYPE_BYTES, _FIELD.TYPE_STRING

# message -> (field, number, type or message, whether repeated)
_MESSAGES: Final[dict[str, tuple[tuple[str, int, Any, bool], ...]]] = {
    "SPIFFEID": (("trust_domain", 1, _STRING, False), ("path", 2, _STRING, False)),
    "X509SVID": (
        ("cert_chain", 1, _BYTES, True),
        ("id", 2, "SPIFFEID", False),
        ("expires_at", 3, _INT64, False),
        ("hint", 4, _STRING, False),
    ),
    "X509SVIDWithKey": (("x509_svid", 1, "X509SVID", False),),
    "SubscribeToX509SVIDsRequest": (("pid", 2, _INT32, False),),
    "SubscribeToX509SVIDsResponse": (
        ("x509_svids", 1, "X509SVIDWithKey", True),
        ("federates_with", 2, _STRING, True),
    ),
}


class DelegatedMessages:
    """The message classes, in a descriptor pool of their own."""

    def __init__(self) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(_file())
        self._pool = pool

    def named(self, name: str) -> Any:
        """Return a message class by its short name."""
        return message_factory.GetMessageClass(
            self._pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )

    def subscribe(self, channel: grpc.aio.Channel) -> Callable[..., Any]:
        """Return SubscribeToX509SVIDs on a channel."""
        response = self.named("SubscribeToX509SVIDsResponse")
        method: Callable[..., Any] = channel.unary_stream(
            _METHOD,
            request_serializer=self.named("SubscribeToX509SVIDsRequest").SerializeToString,
            response_deserializer=lambda text: _without_keys(response.FromString(text)),
        )
        return method


def _without_keys(message: Any) -> Any:
    message.DiscardUnknownFields()
    return message


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="taskmint/delegatedidentity.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number)
            added.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind
    return file
