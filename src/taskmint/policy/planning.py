"""
A policy that loads in, its plan out, unless it asks for what only a namespace may hold.

A token with `paths` makes the daemon write policies, and whoever may write policies can give
itself anything that its namespace holds. So there must be one, of taskmint's own.
"""

from taskmint.errors import Code, ConfigError, Finding
from taskmint.yaml_document import key_path

from .definition import Policy
from .enumerate import enumerate_definitions
from .plan import plan_of
from .plan_objects import Plan, PlanSettings


def plan_policy(policy: Policy, settings: PlanSettings) -> Plan:
    """Derive the plan. Raises ConfigError(policy_invalid) for self-grant outside a namespace."""
    if not settings.namespace and (refused := _writes_policies(policy)):
        raise ConfigError(Code.POLICY_INVALID, refused)
    return plan_of(enumerate_definitions(policy), settings)


def _writes_policies(policy: Policy) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            definition.file,
            definition.line,
            1,
            key_path(("tasks", name, "scope", entitlement.name, "token", "paths")),
            "writes policies, which would be self-grant outside a namespace of taskmint's own",
            "set vault.namespace, or name a policy that the Vault admin keeps",
        )
        for name, definition in sorted(policy.definitions.items())
        for entitlement in definition.entitlements
        if entitlement.acl is not None
    )
