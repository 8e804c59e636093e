"""The JSON Schema of a policy file, for editors; made from the models that read it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, cast

from taskmint.model.scope import Json

from .schema import DefinitionSchema, PolicyFileSchema

_DEFINITION: Final = MappingProxyType({"$ref": "#/$defs/Definition"})
_RENAMED: Final = MappingProxyType({"ge": "minimum", "le": "maximum"})
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def policy_json_schema() -> dict[str, Json]:
    """
    Build the schema.

    It is what an editor can check while somebody writes; whether a policy makes sense, only
    `taskmint policy check` finds out.
    """
    whole = PolicyFileSchema.model_json_schema()
    definition = DefinitionSchema.model_json_schema()
    parts = {**definition.pop("$defs"), "Definition": definition}
    tasks = whole["properties"]["tasks"]
    tasks["patternProperties"] = dict.fromkeys(tasks["patternProperties"], _DEFINITION)
    tasks["additionalProperties"] = False
    tidy = _tidy({**whole, "$defs": dict(sorted(parts.items()))})
    return {"$schema": DIALECT, "title": "taskmint policy", **cast("dict[str, Json]", tidy)}


def _tidy(node: object) -> object:
    """Drop what only Python knows: titles, null for what is left out; name bounds as JSON does."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    kept = {
        _RENAMED.get(key, key): _tidy(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and value is None)
    }
    choices = kept.get("anyOf")
    if isinstance(choices, list):
        real = [choice for choice in choices if choice != {"type": "null"}]
        if len(real) == 1:
            del kept["anyOf"]
            return {**real[0], **kept}
    return kept
