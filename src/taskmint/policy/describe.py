"""A compiled definition in, plain JSON out: what the digest is over, and what tools compare."""

from collections.abc import Mapping

from taskmint.model.scope import Ends, Json
from taskmint.yaml_model import duration_text

from .definition import ApprovalRule, Definition, EntitlementTemplate
from .parameter import BooleanParameter, EnumParameter, IntegerParameter, Parameter
from .template import BodyTemplate, Template


def describe(definition: Definition) -> dict[str, Json]:
    """Say everything that a decision by this definition depends on, and whose it is."""
    return {
        "description": definition.description,
        "owner": definition.owner,
        "class": definition.class_name,
        "who": [pattern.text for pattern in definition.patterns],
        "identity": _identity(definition),
        "parameters": [_parameter(parameter) for parameter in definition.parameters],
        "windows": [str(window) for window in definition.windows],
        "when": [condition.text for condition in definition.conditions],
        "approval": _approval(definition.approval),
        "break_glass": definition.break_glass,
        "dead_man": duration_text(definition.dead_man),
        "deadline": {
            "default": duration_text(definition.deadline_default),
            "max": duration_text(definition.deadline_max),
        },
        "ends": _ends(definition.ends),
        "limits": {
            "concurrent_per_identity": definition.limits.concurrent_per_identity,
            "starts_per_minute": definition.limits.starts_per_minute,
        },
        "scope": {
            entitlement.name: describe_entitlement(entitlement)
            for entitlement in definition.entitlements
        },
    }


def describe_entitlement(entitlement: EntitlementTemplate) -> dict[str, Json]:
    """Say what an entitlement asks of Vault."""
    ceiling = entitlement.ceiling
    acl: dict[str, Json] = {} if entitlement.acl is None else {"acl": _body(entitlement.acl)}
    return {
        **acl,
        "kind": entitlement.kind.value,
        "mount": entitlement.mount,
        "path": str(entitlement.path),
        "method": entitlement.method,
        "body": {key: _body(value) for key, value in entitlement.body.items()},
        "proof": entitlement.proof.value,
        "revocable": entitlement.revocable,
        "ceiling": None if ceiling is None else duration_text(ceiling),
        "key_field": None if entitlement.key_field is None else entitlement.key_field.value,
    }


def _identity(definition: Definition) -> Json:
    methods = definition.identity.methods
    named: list[Json] = [*sorted(method.value for method in methods or ())]
    return {"methods": named or None, "token": definition.identity.binding.value}


def _approval(rule: ApprovalRule | None) -> Json:
    if rule is None:
        return None
    return {
        "from": list(rule.approvers),
        "quorum": rule.quorum,
        "within": duration_text(rule.within),
        "automatic": None if rule.automatic is None else rule.automatic.text,
    }


def _parameter(parameter: Parameter) -> Json:
    match parameter:
        case EnumParameter():
            return {"name": parameter.name, "enum": list(parameter.values)}
        case IntegerParameter():
            bounds: dict[str, Json] = {"min": parameter.min, "max": parameter.max}
            return {"name": parameter.name, "type": "integer", **bounds}
        case BooleanParameter():
            return {"name": parameter.name, "type": "boolean"}
        case _:
            longest = parameter.max_length
            return {"name": parameter.name, "type": "segment", "max_length": longest}


def _ends(ends: Ends) -> Json:
    return {
        "bind": [kind.value for kind in ends.bind],
        "connection": ends.connection,
        "heartbeat": None if ends.heartbeat is None else duration_text(ends.heartbeat),
        "reprove": None if ends.reprove is None else duration_text(ends.reprove),
        "daemon_stop": ends.daemon_stop,
    }


def _body(body: BodyTemplate) -> Json:
    if isinstance(body, Template):
        return str(body)
    if isinstance(body, tuple):
        return [_body(item) for item in body]
    if isinstance(body, Mapping):
        return {key: _body(value) for key, value in body.items()}
    return body
