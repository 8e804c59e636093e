"""
One YAML file and the environment in, one frozen Config out; every key is in config/taskmint.yaml.

The environment is read here and nowhere else, for the keys of `ENVIRONMENT`; the file wins over
it. Nothing is opened, resolved or created.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from . import yaml_document
from .config_values import (
    AbsolutePath,
    ClassName,
    Count,
    GroupName,
    Label,
    LoopbackListener,
    MountPath,
    NodeId,
    PrincipalName,
    Socket,
    TrustDomain,
    UserId,
    VaultAddress,
    WebhookAddress,
    Word,
    WorkloadApi,
    WorkloadId,
)
from .errors import Code, ConfigError, Finding
from .model.clocks import ClassClocks
from .yaml_document import Document, Scalar, key_path, parse_document
from .yaml_model import (
    AnyDuration,
    Boolean,
    Duration,
    FromText,
    Integer,
    Mode,
    NonEmpty,
    Seconds,
    Text,
    YamlModel,
    place,
    read_model,
    refusal,
    whole_seconds,
)

LONGEST_LEEWAY: Final = timedelta(seconds=30)  # reliability, row 7
LONGEST_TICKET_INTERVAL: Final = timedelta(minutes=5)
_SECOND: Final = timedelta(seconds=1)
_MINUTE: Final = timedelta(minutes=1)
_HOUR: Final = timedelta(hours=1)

DEFAULT_CLASSES: Final[Mapping[str, ClassClocks]] = MappingProxyType(
    {
        "ci": ClassClocks(60 * _SECOND, 10 * _MINUTE, 1 * _HOUR),
        "batch": ClassClocks(60 * _SECOND, 15 * _MINUTE, 6 * _HOUR),
        "agent": ClassClocks(60 * _SECOND, 5 * _MINUTE, 1 * _HOUR),
        "human": ClassClocks(5 * _MINUTE, 30 * _MINUTE, 4 * _HOUR),
        "service": ClassClocks(10 * _MINUTE, 1 * _HOUR, 24 * _HOUR),
    }
)

ENVIRONMENT: Final[Mapping[tuple[str, str], tuple[str, ...]]] = MappingProxyType(
    {
        ("vault", "address"): ("BAO_ADDR", "VAULT_ADDR"),
        ("vault", "namespace"): ("BAO_NAMESPACE", "VAULT_NAMESPACE"),
        ("vault", "ca_file"): ("BAO_CACERT", "VAULT_CACERT"),
        ("identity", "workload_api"): ("SPIFFE_ENDPOINT_SOCKET",),
        ("sockets", "task"): ("TASKMINT_SOCKET",),
        ("sockets", "admin"): ("TASKMINT_ADMIN_SOCKET",),
    }
)


# What a login method takes beside its mount, by key.
_LOGIN_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {"role_id": "approle", "secret_id_file": "approle", "token_file": "token"}
)


class NodeSettings(YamlModel):
    """This node; without `id` one is made once and kept beside the ledger."""

    id: NodeId | None = None
    labels: dict[Label, Text] = Field(default_factory=dict)


class SocketSettings(YamlModel):
    """The two doors; under socket activation systemd owns paths and modes."""

    task: Socket = "/run/taskmint/task.sock"
    task_mode: Mode = 0o660
    task_group: Text = "taskmint"
    admin: Socket = "/run/taskmint/admin.sock"
    admin_mode: Mode = 0o600

    @model_validator(mode="after")
    def _two_doors(self) -> "SocketSettings":
        """Callers and operators never meet at one."""
        if self.task == self.admin:
            raise refusal("task and admin are the same path", "name two")
        return self


class PeerSettings(YamlModel):
    """How firmly the kernel must say who connected."""

    pidfd: Annotated[Literal["prefer", "require"], FromText] = "prefer"


class IdentitySettings(YamlModel):
    """Where SVIDs and bundles come from, and which SVIDs are believed."""

    workload_api: WorkloadApi
    agent_uid: UserId | None = None
    trust_domains: tuple[TrustDomain, ...] = ()
    audience: Word = "taskmint"
    leeway: Annotated[AnyDuration, AfterValidator(whole_seconds)] = LONGEST_LEEWAY
    max_lifetime: Seconds = 1 * _HOUR
    max_token_bytes: Annotated[Integer, Field(ge=512, le=8192)] = 8192
    max_bundle_age: Duration = 1 * _HOUR
    token: Annotated[Literal["uid", "process"], FromText] = "uid"
    single_use_jti: Boolean = False
    delegation: WorkloadApi | None = None

    @model_validator(mode="after")
    def _expired_is_expired(self) -> "IdentitySettings":
        """The leeway is for clocks that differ; it is no longer life for tokens."""
        if self.leeway > LONGEST_LEEWAY:
            raise refusal(
                "leeway is longer than 30s", "write 30s or less, and keep the time by NTP"
            )
        return self


class VaultAuthSettings(YamlModel):
    """
    How the daemon logs in: JWT or cert auth with its own SVID; else AppRole, or a token.

    `mount` is the method's own name when left out. `spiffe_id` is for the plan: who may log in.
    """

    method: Annotated[Literal["jwt", "cert", "approle", "token"], FromText] = "jwt"
    mount: MountPath | None = None
    role: Word = "taskmint"
    audience: Word = "vault"
    spiffe_id: WorkloadId | None = None
    role_id: Word | None = None
    secret_id_file: AbsolutePath | None = None
    token_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _what_the_method_takes(self) -> "VaultAuthSettings":
        """A method comes with what it logs in with; another's keys may wait for their day."""
        wanted = sorted(name for name, method in _LOGIN_KEYS.items() if method == self.method)
        if missing := [name for name in wanted if getattr(self, name) is None]:
            raise refusal(f"{self.method} needs {' and '.join(missing)}", "write it here")
        return self


class VaultSettings(YamlModel):
    """The Vault or OpenBao server, and how patient we are with it."""

    address: VaultAddress
    namespace: MountPath | None = None
    ca_file: AbsolutePath | None = None
    auth: VaultAuthSettings = VaultAuthSettings()
    timeout: Duration = 30 * _SECOND
    drift_grace: AnyDuration = 15 * _MINUTE
    drift_interval: Duration = 1 * _HOUR
    max_connections: Count = 64
    unsafe_allow_wide_rights: Boolean = False


class PolicySettings(YamlModel):
    """
    Policy files, and directories whose *.yaml files are read in order of name.

    With `watch` they are read again when they have changed.
    """

    files: Annotated[tuple[AbsolutePath, ...], NonEmpty] = ("/etc/taskmint/policy.d",)
    watch: Boolean = False


class LedgerSettings(YamlModel):
    """The durable record."""

    path: AbsolutePath = "/var/lib/taskmint/ledger.db"
    retention: Duration = 90 * 24 * _HOUR
    row_retention: Duration | None = None


class LimitSettings(YamlModel):
    """Every bound of P10; beyond it the caller gets 429 or 503 and Retry-After."""

    connections: Count = 1024
    connections_per_uid: Count = 256
    tasks: Count = 10_000
    tasks_per_identity: Count = 1_000
    starts_per_minute: Count = 6_000
    starts_per_minute_per_identity: Count = 600
    mints_in_flight: Count = 64
    unproven_revocations: Count = 100
    pending: Count = 1_000
    pending_per_identity: Count = 10
    body_bytes: Annotated[Integer, Field(ge=1024, le=262_144)] = 65_536
    header_timeout: Duration = 5 * _SECOND
    request_timeout: Duration = 10 * _SECOND
    idle_timeout: Duration = 5 * _MINUTE


class RoleMembers(YamlModel):
    """Who has an admin role, by the kernel's word."""

    uids: tuple[UserId, ...] = ()
    groups: tuple[Word, ...] = ()


class RoleSettings(YamlModel):
    """Root is an auditor without being named, and nothing else."""

    operator: RoleMembers = RoleMembers()
    approver: RoleMembers = RoleMembers()
    auditor: RoleMembers = RoleMembers()


class AdminSettings(YamlModel):
    """The admin socket's roles."""

    roles: RoleSettings = RoleSettings()


class ApproverSettings(YamlModel):
    """One person: what they sign with, and what else is them."""

    keys: AbsolutePath | None = None
    groups: tuple[GroupName, ...] = ()
    uids: tuple[UserId, ...] = ()
    spiffe_ids: tuple[WorkloadId, ...] = ()


class ApprovalSettings(YamlModel):
    """Who may approve what policies let wait; a policy names them as user:NAME or group:NAME."""

    approvers: dict[PrincipalName, ApproverSettings] = Field(default_factory=dict)
    local_uid: Boolean = False


class BreakGlassSettings(YamlModel):
    """Makes this daemon the emergency door: it serves break-glass definitions and nothing else."""

    ticket_hook: Annotated[tuple[Text, ...], NonEmpty]
    ticket_interval: Duration = 30 * _SECOND
    max: Duration = 1 * _HOUR

    @model_validator(mode="after")
    def _a_program(self) -> "BreakGlassSettings":
        """The hook is a program, not a name to be looked for."""
        if not self.ticket_hook[0].startswith("/"):
            raise refusal("a hook begins with the path of a program", "begin it with a slash")
        return self

    @model_validator(mode="after")
    def _asked_often(self) -> "BreakGlassSettings":
        """So long an emergency may outlive its ticket."""
        if self.ticket_interval > LONGEST_TICKET_INTERVAL:
            raise refusal("ticket_interval is longer than 5m", "write 5m or less")
        return self


class NoticeSettings(YamlModel):
    """How people are told that something waits for them, or that an emergency door was used."""

    webhook: WebhookAddress | None = None
    webhook_key_file: AbsolutePath | None = None
    command: tuple[Text, ...] = ()
    timeout: Duration = 5 * _SECOND

    @model_validator(mode="after")
    def _signed(self) -> "NoticeSettings":
        """A webhook believes what is signed, so there is a key; a command is a program."""
        if (self.webhook is None) != (self.webhook_key_file is None):
            raise refusal("webhook and webhook_key_file belong together", "write both, or neither")
        if self.command and not self.command[0].startswith("/"):
            raise refusal("a command begins with the path of a program", "begin it with a slash")
        return self


class MetricsSettings(YamlModel):
    """Metrics over loopback TCP, beside the admin socket; off unless set."""

    listen: LoopbackListener | None = None


class TracingSettings(YamlModel):
    """Where spans go, by OTLP over HTTP; off unless set, and the extra `otel` is installed."""

    endpoint: WebhookAddress | None = None


class ClassSettings(YamlModel):
    """Clocks of a class; what is left out keeps the built-in class's value."""

    dead_man: Seconds | None = None
    default: Duration | None = None
    max: Duration | None = None
    heartbeat: Duration | None = None


class Config(YamlModel):
    """The daemon's settings; durations are timedeltas, modes are integers."""

    node: NodeSettings = NodeSettings()
    sockets: SocketSettings = SocketSettings()
    peer: PeerSettings = PeerSettings()
    identity: IdentitySettings
    vault: VaultSettings
    policy: PolicySettings = PolicySettings()
    ledger: LedgerSettings = LedgerSettings()
    limits: LimitSettings = LimitSettings()
    admin: AdminSettings = AdminSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    notices: NoticeSettings = NoticeSettings()
    break_glass: BreakGlassSettings | None = None
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    classes: dict[ClassName, ClassSettings] = Field(default_factory=dict)
    on_stop: Annotated[Literal["keep", "revoke"], FromText] = "keep"
    shutdown_timeout: Duration = 30 * _SECOND

    def class_clocks(self) -> dict[str, ClassClocks]:
        """Return every class: the built-in ones, as changed, and the file's own."""
        merged = dict(DEFAULT_CLASSES)
        for name, given in self.classes.items():
            changed = {key: value for key, value in given if value is not None}
            base = merged.get(name, ClassClocks(timedelta(), timedelta(), timedelta()))
            merged[name] = replace(base, **changed)
        return merged


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value, by its dotted key, and where it came from."""

    key: str
    value: object
    origin: str  # "file:line", an environment variable's name, or "default"


def load_config(file: str, text: bytes, env: Mapping[str, str]) -> Config:
    """Read a config file's bytes. Raises ConfigError(config_invalid) with every finding."""
    document = parse_document(file, text)
    filled, taken = _with_environment(document, env)
    read = read_model(Config, filled)
    found = [_blame_environment(finding, taken) for finding in read.findings]
    if read.value is not None and filled.root is not None:
        found += _class_findings(file, filled.root, read.value)
    if read.value is None or found:
        raise ConfigError(Code.CONFIG_INVALID, tuple(sorted(found)))
    return read.value


def effective_settings(
    config: Config, file: str, text: bytes, env: Mapping[str, str]
) -> tuple[Setting, ...]:
    """List the values of a config that `load_config` made of the same file and environment."""
    document = parse_document(file, text)
    _, taken = _with_environment(document, env)
    by_key = {key_path(steps): name for steps, name in taken.items()}
    settings = []
    for steps, value in _leaves(config):
        key = key_path(steps)
        origin = by_key.get(key, "default")
        if document.root is not None and _stands(document.root, steps):
            line, _ = place(document.root, steps)
            origin = f"{file}:{line}"
        settings.append(Setting(key, value, origin))
    return tuple(settings)


def _leaves(
    model: BaseModel, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*above, name))
        elif isinstance(value, dict) and any(isinstance(v, BaseModel) for v in value.values()):
            for key, inner in value.items():
                yield from _leaves(inner, (*above, name, key))
        else:
            yield (*above, name), model.model_dump(mode="json", include={name})[name]


def _stands(node: yaml_document.Node, steps: tuple[str, ...]) -> bool:
    for step in steps:
        if not isinstance(node, yaml_document.Mapping) or step not in node.entries:
            return False
        node = node.entries[step]
    return True


def _with_environment(
    document: Document, env: Mapping[str, str]
) -> tuple[Document, dict[tuple[str, str], str]]:
    """Fill in what the file leaves to the environment; say which variable filled which key."""
    root = document.root
    if not isinstance(root, yaml_document.Mapping):
        return document, {}
    entries, taken = dict(root.entries), {}
    for (section, key), variables in ENVIRONMENT.items():
        line, column = place(root, (section,))
        held = entries.get(section, yaml_document.Mapping({}, {}, line, column))
        name = next((name for name in variables if env.get(name)), None)
        if isinstance(held, yaml_document.Mapping):
            if key not in held.entries and name is not None:
                scalar = Scalar(env[name], plain=False, line=held.line, column=held.column)
                held = replace(held, entries={**held.entries, key: scalar})
                taken[section, key] = name
            entries[section] = held
    return replace(document, root=replace(root, entries=entries)), taken


def _blame_environment(finding: Finding, taken: Mapping[tuple[str, str], str]) -> Finding:
    """Add the variable's name where a value, or the want of one, is the environment's."""
    for steps, variables in ENVIRONMENT.items():
        if finding.key != key_path(steps):
            continue
        if steps in taken:
            return replace(finding, problem=f"(from {taken[steps]}) {finding.problem}")
        if finding.problem == "is missing":
            return replace(finding, fix=f"write it, or set {' or '.join(variables)}")
    return finding


def _class_findings(file: str, root: yaml_document.Node, config: Config) -> Iterator[Finding]:
    for name, clocks in config.class_clocks().items():
        steps = ("classes", name)
        line, column = place(root, steps)
        key = key_path(steps)
        if not all((clocks.dead_man, clocks.default, clocks.max)):
            fix = "write dead_man, default and max"
            yield Finding(file, line, column, key, "is a class of your own without clocks", fix)
        elif not clocks.dead_man < clocks.max or not clocks.default <= clocks.max:
            fix = "keep dead_man < max and default <= max"
            yield Finding(file, line, column, key, "has clocks that contradict each other", fix)
