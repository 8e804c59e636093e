"""
What Vault answered in, what it means out: pure, and total over any status and any body.

The distinction that everything rests on: did this request provably create nothing, may it have,
or is the thing provably gone. Words and statuses are those of OpenBao 2.7.2, tried, and of
HashiCorp Vault's HTTP API page; where the two differ it is said here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.printable import printable
from taskmint.model.scope import Json

_LONGEST_DETAIL: Final = 300
_LONGEST_WAIT: Final = timedelta(seconds=60)
_WRAPPED: Final = re.compile(r"1 error occurred:\n\t\* (.*?)\n\n", re.DOTALL)

# A look-up of what does not exist answers 400 with exactly these words.
NO_SUCH_LEASE: Final = "invalid lease"
NO_SUCH_TOKEN: Final = "invalid accessor"
# An accessor outlives its token when the server is killed between deleting the one and the other.
# Revoking it then answers 400 and a look-up 403, with exactly these words (token_store.go).
NO_TOKEN_LEFT: Final = "token not found"
_NO_TOKEN_BEHIND: Final = "bad token"
# A request by the access control itself, before any engine saw it; Vault adds `invalid token`.
_ACCESS_DENIED: Final = frozenset({"permission denied", "invalid token"})
# A standby that cannot reach the active node passes nothing on.
_NO_ACTIVE_NODE: Final = "local node not active but active cluster node not found"
_SECONDS: Final = re.compile("[0-9]{1,5}", re.ASCII)
_UNKNOWN_ROLE: Final = re.compile(r"unknown role\b.*")


class Meaning(StrEnum):
    """What an answer says about the request."""

    DONE = "done"
    QUEUED = "queued"  # accepted, not done: a revocation without `sync`
    MOVED = "moved"  # a standby that sends clients elsewhere
    REFUSED = "refused"  # 400: the request, or what stands behind it, will not do
    DENIED = "denied"  # 403 by the access control
    ABSENT = "absent"  # 404, 405: no such path, nothing there
    BEHIND = "behind"  # 412: this node has not yet seen what the request builds on
    BUSY = "busy"  # 429: a quota
    STANDBY = "standby"  # 472, 473, or no active node to forward to
    SEALED = "sealed"  # 503
    FAILED = "failed"  # 5xx: it may have taken effect
    STRANGE = "strange"  # nothing that Vault says


MOUNT_FAILED: Final = frozenset(
    {Meaning.FAILED, Meaning.STRANGE, Meaning.SEALED, Meaning.STANDBY, Meaning.MOVED}
)
CREATED_NOTHING: Final = frozenset(
    {
        Meaning.MOVED,
        Meaning.DENIED,
        Meaning.ABSENT,
        Meaning.BEHIND,
        Meaning.BUSY,
        Meaning.STANDBY,
        Meaning.SEALED,
    }
)
_BY_STATUS: Final[Mapping[int, Meaning]] = {
    HTTPStatus.OK: Meaning.DONE,
    HTTPStatus.NO_CONTENT: Meaning.DONE,
    HTTPStatus.ACCEPTED: Meaning.QUEUED,
    **dict.fromkeys((301, 302, 303, 307, 308), Meaning.MOVED),
    HTTPStatus.BAD_REQUEST: Meaning.REFUSED,
    HTTPStatus.FORBIDDEN: Meaning.DENIED,
    HTTPStatus.NOT_FOUND: Meaning.ABSENT,
    HTTPStatus.METHOD_NOT_ALLOWED: Meaning.ABSENT,
    HTTPStatus.PRECONDITION_FAILED: Meaning.BEHIND,
    HTTPStatus.TOO_MANY_REQUESTS: Meaning.BUSY,
    472: Meaning.STANDBY,
    473: Meaning.STANDBY,
    HTTPStatus.INTERNAL_SERVER_ERROR: Meaning.FAILED,
    HTTPStatus.BAD_GATEWAY: Meaning.FAILED,
    HTTPStatus.SERVICE_UNAVAILABLE: Meaning.SEALED,
    HTTPStatus.GATEWAY_TIMEOUT: Meaning.FAILED,
}
# These mean what they say without Vault's `errors`; every other one may be from a load balancer.
_NO_FORM_NEEDED: Final = frozenset({200, 202, 204, 301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Reply:
    """
    One answer. `body` is the JSON object, or None when there is none.

    `headers` are lower-case. The body may hold a secret and does not print. `meaning` is what the
    answer says; it is asked for several times a call.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: Mapping[str, Json] | None = field(repr=False)
    meaning: Meaning = field(init=False)

    def __post_init__(self) -> None:
        said = classify(self.status, self.errors, empty=self.body is None)
        object.__setattr__(self, "meaning", said)

    @property
    def errors(self) -> tuple[str, ...] | None:
        """Vault's `errors`, each without the wrapping of a single error; None when not Vault's."""
        given = None if self.body is None else self.body.get("errors")
        texts = _texts(given)
        if not isinstance(given, list) or len(texts) != len(given):
            return None
        return tuple(map(_unwrap, texts))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Vault's `warnings`, for instance that a TTL was capped."""
        given = None if self.body is None else self.body.get("warnings")
        return tuple(map(cut, _texts(given)))

    def part(self, name: str) -> Mapping[str, Json]:
        """Return an object inside the body (`data`, `auth`), or an empty one."""
        value = None if self.body is None else self.body.get(name)
        return value if isinstance(value, dict) else {}


def classify(status: int, errors: tuple[str, ...] | None, *, empty: bool) -> Meaning:
    """Name what a status and its errors mean; without Vault's form a failure is STRANGE."""
    meaning = _BY_STATUS.get(status, Meaning.STRANGE)
    if status in _NO_FORM_NEEDED:
        return Meaning.STRANGE if status == HTTPStatus.OK and empty else meaning
    if errors is None:
        return Meaning.STRANGE
    if _NO_ACTIVE_NODE in errors:
        return Meaning.STANDBY
    if meaning is Meaning.DENIED and _ACCESS_DENIED.isdisjoint(errors):
        return Meaning.REFUSED  # an engine's own 403, after who knows what
    if meaning is Meaning.SEALED and not any(error.endswith(" is sealed") for error in errors):
        return Meaning.FAILED
    return meaning


def says_gone(reply: Reply, words: str) -> bool:
    """Say whether a look-up found nothing: 400 and exactly these words, nothing less."""
    return reply.status == HTTPStatus.BAD_REQUEST and reply.errors == (words,)


def says_token_gone(reply: Reply) -> bool:
    """Say whether the look-up of an accessor found no token."""
    left_over = reply.status == HTTPStatus.FORBIDDEN and reply.errors == (_NO_TOKEN_BEHIND,)
    return left_over or says_gone(reply, NO_SUCH_TOKEN)


def failure(
    reply: Reply, doing: str, *, refused_created_nothing: bool = False
) -> Unavailable | BackendFailed:
    """
    Translate an answer that is not DONE; `doing` says what was tried, as in "creating a token".

    `refused_created_nothing` is for requests whose 400 proves that nothing was made.
    """
    meaning = reply.meaning
    nothing = meaning in CREATED_NOTHING
    said = cut("; ".join(reply.errors or ()))
    if meaning is Meaning.DENIED or _unknown_role(reply):
        return Unavailable(
            Code.PLAN_NOT_APPLIED,
            f"Vault does not permit {doing}",
            fix="run `taskmint vault check`, then `taskmint vault apply`",
            created_nothing=True,
        )
    if meaning is Meaning.MOVED:
        return Unavailable(
            Code.VAULT_UNAVAILABLE,
            f"{doing}: this Vault node redirects, and redirects are not followed",
            fix="set vault.address to the active node, or let standbys forward requests",
            created_nothing=True,
        )
    if meaning in {Meaning.BEHIND, Meaning.BUSY, Meaning.STANDBY, Meaning.SEALED}:
        return Unavailable(
            Code.VAULT_UNAVAILABLE,
            f"{doing}: Vault answered {reply.status} ({meaning}) {said}".rstrip(),
            retry_after=_retry_after(reply.headers),
            created_nothing=True,
        )
    if meaning is Meaning.STRANGE:
        return Unavailable(
            Code.VAULT_UNAVAILABLE,
            f"{doing}: an answer with status {reply.status} that is not Vault's",
            fix="see what stands between the daemon and vault.address",
        )
    refused = meaning is Meaning.REFUSED and refused_created_nothing
    return BackendFailed(
        Code.VAULT_ERROR,
        f"{doing}: Vault answered {reply.status}: {said or meaning}",
        created_nothing=nothing or refused,
    )


def cut(text: str) -> str:
    """Cut somebody else's text so that it can stand in a log line."""
    return printable(text[:_LONGEST_DETAIL], instead=" ").strip()


def _unknown_role(reply: Reply) -> bool:
    return (
        reply.meaning is Meaning.REFUSED
        and len(reply.errors or ()) == 1
        and all(_UNKNOWN_ROLE.fullmatch(error) for error in reply.errors or ())
    )


def _unwrap(error: str) -> str:
    match = _WRAPPED.fullmatch(error)
    return match[1] if match else error


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _retry_after(headers: Mapping[str, str]) -> timedelta:
    text = headers.get("retry-after", "")
    seconds = int(text) if _SECONDS.fullmatch(text) else 1
    return min(max(timedelta(seconds=seconds), timedelta(seconds=1)), _LONGEST_WAIT)
