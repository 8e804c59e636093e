"""A task definition and a policy as they are decided by: compiled, checked, frozen."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import (
    ISSUED,
    Approval,
    BindKind,
    Ends,
    Entitlement,
    EntitlementKind,
    Json,
    KeyField,
    ProofLevel,
)

from .condition import Condition
from .parameter import Parameter
from .pattern import Pattern, WhoIndex
from .template import (
    ANY_TEXT,
    BodyTemplate,
    Misplaced,
    Template,
    Values,
    body_pattern,
    is_own_of_vault,
    names_in,
    path_pattern,
    render_body,
)
from .window import Window

_ACL_PATH: Final = re.compile(r'^path "([^"]+)"', re.MULTILINE)

# The server ends by itself what belongs to a task, this much after its longest deadline.
AFTER_DEADLINE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class EntitlementTemplate:
    """An entitlement before its placeholders are filled."""

    name: str
    kind: EntitlementKind
    mount: str
    path: Template
    method: Literal["GET", "POST"]
    body: Mapping[str, BodyTemplate]
    proof: ProofLevel
    revocable: bool = True
    ceiling: timedelta | None = None
    key_field: KeyField | None = None
    acl: Template | None = None

    @property
    def names(self) -> frozenset[str]:
        """The placeholders in it."""
        return frozenset(self.path.names) | names_in(self.body) | names_in(self.acl or ())

    def render(self, values: Values) -> Entitlement:
        """Fill the placeholders; the caller's key is put in by decide. Raises Misplaced."""
        body = {key: render_body(value, values) for key, value in self.body.items()}
        acl = None if self.acl is None else self.acl.render(values)
        path = self.path.render(values)
        reached = [f"{self.mount}/{path}"] if self.path.names else []
        reached += _ACL_PATH.findall(acl or "")
        if any(map(is_own_of_vault, reached)):
            raise Misplaced("a value would make a path one of Vault's own")
        return self._made(path, body, acl)

    def span(self, values: Values) -> Entitlement:
        """Fill what is known; `+` and `*` stand for the rest. Raises Misplaced."""
        body = {key: body_pattern(value, values) for key, value in self.body.items()}
        if self.key_field is not None:
            body[self.key_field.value] = ANY_TEXT
        if self.ceiling is not None and self.kind in ISSUED:
            body["ttl"] = ANY_TEXT  # shortened to what is left of the task when it is minted
        acl = None if self.acl is None else str(body_pattern(self.acl, values))
        return self._made(path_pattern(self.path, values), body, acl)

    def _made(self, path: str, body: Mapping[str, Json], acl: str | None) -> Entitlement:
        return Entitlement(
            name=self.name,
            kind=self.kind,
            mount=self.mount,
            path=path,
            method=self.method,
            body=body,
            proof=self.proof,
            revocable=self.revocable,
            ceiling=self.ceiling,
            key_field=self.key_field,
            acl=acl,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for each identity; None is no bound of this definition's own."""

    concurrent_per_identity: int | None = None
    starts_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """How the caller must have proven itself; no methods named means any."""

    methods: frozenset[IdentityMethod] | None = None
    binding: TokenBinding = TokenBinding.UID


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Whose yes is needed, unless the automatic condition holds."""

    approvers: tuple[str, ...]
    quorum: int
    within: timedelta
    automatic: Condition | None = None

    @property
    def needed(self) -> Approval:
        """What is waited for where the condition does not hold."""
        return Approval(self.approvers, self.quorum, self.within)


@dataclass(frozen=True, slots=True)
class Definition:
    """
    Who may have what, under which conditions, for how long.

    `fact_names` are the variables that its conditions may read, all of them together.
    `bound` is `ends` narrowed to one kind of bind, for each that may be asked for and for silence.
    `policy_parameters` are the enum parameters that the scope uses, in declared order: they name
    the token policy. `file` and `line` say where the definition stands.
    """

    name: str
    description: str
    owner: str
    class_name: str
    patterns: tuple[Pattern, ...]
    who: WhoIndex
    identity: IdentityRule
    parameters: tuple[Parameter, ...]
    policy_parameters: tuple[str, ...]
    windows: tuple[Window, ...]
    conditions: tuple[Condition, ...]
    approval: ApprovalRule | None
    fact_names: tuple[str, ...]
    token_role: str
    entitlements: tuple[EntitlementTemplate, ...]
    dead_man: timedelta
    deadline_default: timedelta
    deadline_max: timedelta
    ends: Ends
    bound: Mapping[BindKind | None, Ends]
    limits: Limits
    break_glass: bool
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Policy:
    """
    Every definition, by name, and every shadow by the name that it shadows.

    A shadow is decided beside the definition of its name and never grants. `owners` is the files'
    own list, for lints.

    `digest` is over everything that was compiled, so equal digests decide equally; how the files
    were laid out, ordered and commented does not count.
    """

    digest: str
    definitions: Mapping[str, Definition]
    shadows: Mapping[str, Definition]
    owners: frozenset[str] = frozenset()
