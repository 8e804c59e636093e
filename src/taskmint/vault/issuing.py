"""
The roles that make certificates, signed keys and one-time passwords, as the plan needs them, and
as the server has them, in; what an admin must see to out: pure.

The policy decides names and lifetimes. Vault's role is what holds a daemon to them that nobody
trusts any more, so where it would allow more, that is a finding.
"""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final

from taskmint.model.scope import EntitlementKind, Json
from taskmint.policy.plan_objects import IssuingRole, Plan

Fields = Mapping[str, Json]

_CRL_CONFIG: Final = "config/crl"
_SIGN: Final = "sign"


def issuing_paths(plan: Plan, mounts: Mapping[str, Fields]) -> Iterator[str]:
    """Yield what is to be read: each role, and how its mount makes revocation lists."""
    for role in plan.issuing_roles:
        if mounts.get(role.mount, {}).get("type") == role.kind.value:
            yield role_path(role)
            if role.listed:
                yield f"{role.mount}/{_CRL_CONFIG}"


def role_path(role: IssuingRole) -> str:
    """Return where Vault keeps it."""
    return f"{role.mount}/roles/{role.name}"


def issuing_findings(
    plan: Plan, mounts: Mapping[str, Fields], read: Mapping[str, Fields | None]
) -> Iterator[str]:
    """Yield one sentence for each finding."""
    for role in plan.issuing_roles:
        engine = mounts.get(role.mount)
        if engine is None:
            continue  # said of the mount already
        if engine.get("type") != role.kind.value:
            yield f"{role.mount} is a {engine.get('type')} engine, and the policy says {role.kind}"
            continue
        for problem in _problems(role, read):
            yield f"{role.kind} role {role.mount}/{role.name}: {problem}"


def _problems(role: IssuingRole, read: Mapping[str, Fields | None]) -> Iterator[str]:
    data = read.get(role_path(role))
    if data is None:
        yield "does not exist"
        return
    if role.ceiling is not None:
        yield from _lifetime(role.ceiling, data)
    of_kind = _ssh_problems if role.kind is EntitlementKind.SSH else _pki_problems
    yield from of_kind(role, data)
    if role.listed:
        yield from _list_problems(read.get(f"{role.mount}/{_CRL_CONFIG}") or {})


def _ssh_problems(role: IssuingRole, data: Fields) -> Iterator[str]:
    wanted = "ca" if role.operation == _SIGN else "otp"
    if data.get("key_type") != wanted:
        yield f"its key_type is {data.get('key_type')}, and the policy needs {wanted}"
    if role.operation == _SIGN and data.get("allowed_users") == "*":
        yield "its allowed_users are *: every principal can be signed with it"


def _pki_problems(role: IssuingRole, data: Fields) -> Iterator[str]:
    if role.operation == _SIGN:
        for field in ("use_csr_common_name", "use_csr_sans"):
            if data.get(field):
                yield f"its {field} is true: a caller's request would choose names"
    if data.get("allow_any_name"):
        yield "its allow_any_name is true: every name can be certified with it"
    if role.listed and not data.get("generate_lease"):
        yield "its generate_lease is false: nothing revokes what it makes (proof: crl)"


def _lifetime(ceiling: timedelta, data: Fields) -> Iterator[str]:
    value = data.get("max_ttl")
    longest = int(value) if isinstance(value, int | float) else 0
    seconds = int(ceiling.total_seconds())
    if longest == 0:
        yield f"it has no max_ttl, and the policy's ceiling is {seconds} s"
    elif longest > seconds:
        yield f"its max_ttl is {longest} s, and the policy's ceiling is {seconds} s"


def _list_problems(config: Fields) -> Iterator[str]:
    if config.get("disable"):
        yield "the mount's revocation list is disabled (proof: crl)"
    if config.get("auto_rebuild"):
        yield "its mount lists a certificate only later: auto_rebuild is true (proof: crl)"
