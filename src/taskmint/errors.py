"""
Every failure, as one tree with stable codes.

    TaskmintError                    raised for                                     HTTP
    ├── BadRequest                   a request we cannot read                       400
    ├── Unproven                     a caller whose identity is not proven          401
    ├── Denied                       identity fine, policy says no                  403
    ├── NotFound                     no such task of this caller                    404
    ├── Conflict                     the task is not in a state for that            409
    ├── Unprocessable                well-formed, but outside what policy allows    422
    ├── LimitExceeded                a limit of P10; says when to retry             429
    ├── BackendFailed                Vault or what stands behind it answered badly  502
    ├── Unavailable                  a dependency is away; says when to retry       503
    └── ConfigError                  a config or policy file                        422

`code` is API and safe to show; `detail` says what and where; `fix` says what to do.
No exception here knows HTTP: api/problems.py holds the one table of statuses.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Code(StrEnum):
    """Stable, documented in docs/errors.md; a test reaches each."""

    # 400
    REQUEST_HEADER_MISSING = "request_header_missing"
    MALFORMED_REQUEST = "malformed_request"
    BODY_TOO_LARGE = "body_too_large"  # 413
    ENCODING_NOT_SUPPORTED = "encoding_not_supported"  # 415
    # 401
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_INVALID = "credential_invalid"
    CREDENTIAL_EXPIRED = "credential_expired"
    PEER_UNATTESTED = "peer_unattested"
    # 403
    NOT_PERMITTED = "not_permitted"
    ROLE_MISSING = "role_missing"
    APPROVAL_INVALID = "approval_invalid"
    APPROVAL_REFUSED = "approval_refused"
    # 404
    TASK_NOT_FOUND = "task_not_found"
    PATH_NOT_FOUND = "path_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    # 409
    TASK_ENDED = "task_ended"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    TASK_CHANGING = "task_changing"
    CREDENTIALS_NOT_RETAINED = "credentials_not_retained"
    # 422
    PARAMETER_INVALID = "parameter_invalid"
    TTL_EXCEEDS_POLICY = "ttl_exceeds_policy"
    BIND_REFUSED = "bind_refused"
    PUBLIC_KEY_INVALID = "public_key_invalid"
    # 429
    LIMIT_EXCEEDED = "limit_exceeded"
    # 502
    VAULT_ERROR = "vault_error"
    # 503
    IDENTITY_UNAVAILABLE = "identity_unavailable"
    VAULT_UNAVAILABLE = "vault_unavailable"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    PLAN_NOT_APPLIED = "plan_not_applied"
    RIGHTS_TOO_WIDE = "rights_too_wide"
    SHUTTING_DOWN = "shutting_down"
    # files and start-up
    CONFIG_INVALID = "config_invalid"
    POLICY_INVALID = "policy_invalid"
    SOCKET_IN_USE = "socket_in_use"
    # ours
    INTERNAL_ERROR = "internal_error"


class Limit(StrEnum):
    """The limits of P10 that a request can meet; metrics count them by these words."""

    TASKS = "tasks"
    TASKS_PER_IDENTITY = "tasks_per_identity"
    CONCURRENT_PER_IDENTITY = "concurrent_per_identity"
    STARTS_PER_MINUTE = "starts_per_minute"
    STARTS_PER_MINUTE_PER_IDENTITY = "starts_per_minute_per_identity"
    STARTS_PER_MINUTE_OF_DEFINITION = "starts_per_minute_of_definition"
    MINTS_IN_FLIGHT = "mints_in_flight"
    UNPROVEN_REVOCATIONS = "unproven_revocations"
    REVISIONS = "revisions"
    ATTESTED_PROCESSES = "attested_processes"
    TOKENS = "tokens"
    DESCRIPTORS = "descriptors"
    PENDING = "pending"
    PENDING_PER_IDENTITY = "pending_per_identity"
    STATEMENTS_PER_MINUTE = "statements_per_minute"
    STATEMENTS_PER_MINUTE_OF_UID = "statements_per_minute_of_uid"


class TaskmintError(Exception):
    """The root: a code, a sentence for a person, and what to do about it."""

    def __init__(self, code: Code, detail: str, *, fix: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fix = fix


class BadRequest(TaskmintError):
    """Raised when a request cannot be read."""


class Unproven(TaskmintError):
    """Raised when the caller's identity is not proven; never carries a library's text."""


class Denied(TaskmintError):
    """Raised when a proven caller may not have what it asks for, or asks for what is not there."""


class NotFound(TaskmintError):
    """Raised when the caller owns no such task; somebody else's looks the same."""


class Conflict(TaskmintError):
    """Raised when a task is not in a state for what is asked."""


class Unprocessable(TaskmintError):
    """Raised when a readable request lies outside what the definition allows."""


class LimitExceeded(TaskmintError):
    """Raised when a limit is reached (P10)."""

    def __init__(self, limit: Limit, detail: str, *, retry_after: timedelta, fix: str = "") -> None:
        super().__init__(Code.LIMIT_EXCEEDED, detail, fix=fix)
        self.limit = limit
        self.retry_after = retry_after


class BackendFailed(TaskmintError):
    """
    Raised when Vault, or the backend behind it, answered and the answer is a failure.

    `created_nothing` is True only when the answer proves that no token and no lease came to be.
    """

    def __init__(
        self, code: Code, detail: str, *, fix: str = "", created_nothing: bool = False
    ) -> None:
        super().__init__(code, detail, fix=fix)
        self.created_nothing = created_nothing


class Unavailable(TaskmintError):
    """
    Raised when something we depend on is away or did not answer in time.

    `created_nothing` is True only when the request provably did not take effect.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        fix: str = "",
        retry_after: timedelta = timedelta(seconds=1),
        created_nothing: bool = False,
    ) -> None:
        super().__init__(code, detail, fix=fix)
        self.retry_after = retry_after
        self.created_nothing = created_nothing


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing wrong in a file: where, what, and what to write instead. Lines count from 1."""

    file: str
    line: int
    column: int
    key: str
    problem: str
    fix: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.problem}{fix}"


class ConfigError(TaskmintError):
    """Raised for a config or policy file, with everything that is wrong in it at once."""

    def __init__(self, code: Code, findings: tuple[Finding, ...]) -> None:
        detail = "\n".join(map(str, sorted(findings)))
        super().__init__(code, detail, fix="correct what is listed, then try again")
        self.findings = findings
