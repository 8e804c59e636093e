"""
What can go wrong for a workload, as one tree; each says what happened and what to do.

    ClientError
    ├── NoIdentity       the SPIFFE Workload API gave this process no SVID
    ├── Unreachable      no daemon on the socket, or the connection broke
    │   └── Interrupted  the connection broke after the request was sent: it may have taken effect
    ├── BadAnswer        something answered that is not taskmint
    ├── WrongDaemon      by mutual TLS: what answers is not the daemon that was expected
    └── Refused          the daemon said no: `code` is stable (docs/errors.md)
"""


class ClientError(Exception):
    """The root: `detail` is a sentence for a person, `fix` says what to do about it."""

    def __init__(self, detail: str, *, fix: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.fix = fix


class NoIdentity(ClientError):
    """Raised when the SPIFFE Workload API gave this process no SVID."""


class Unreachable(ClientError):
    """Raised when no daemon answers on the socket."""


class Interrupted(Unreachable):
    """Raised when the connection broke after the request was sent: it may have taken effect."""


class BadAnswer(ClientError):
    """Raised when what answered is not taskmint's API."""


class WrongDaemon(ClientError):
    """Raised when what answers could not prove the SPIFFE ID expected of the daemon."""


class Refused(ClientError):
    """
    Raised when the daemon answered with a problem (RFC 9457).

    `code` is one of those in docs/errors.md; `retry_after` is in seconds, None when repeating
    the request will not help.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, fix: str, retry_after: float | None
    ) -> None:
        super().__init__(detail, fix=fix)
        self.status = status
        self.code = code
        self.retry_after = retry_after
