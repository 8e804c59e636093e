"""docs/policy.md is the whole language: held against the models, and its examples are run."""

import re
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from policy.asking import NOON, REPOSITORY, load
from taskmint.config import DEFAULT_CLASSES
from taskmint.policy.case_schema import CaseFileSchema, ExpectSchema, GivenSchema
from taskmint.policy.cases import read_cases, run_case
from taskmint.policy.condition import FIXED
from taskmint.policy.lint import lint
from taskmint.policy.schema import (
    ApprovalSchema,
    DefinitionSchema,
    IdentitySchema,
    ParameterSchema,
    PolicyFileSchema,
    WindowSchema,
)
from taskmint.policy.scope_schema import (
    DatabaseSchema,
    PkiSchema,
    SecretSchema,
    SshSchema,
    TokenSchema,
)

PAGE = (REPOSITORY / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
QUOTED = set(re.findall(r"`([^`\n]+)`", PROSE))


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """Every model inside an annotation, however it is wrapped, and those below them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
        return
    for argument in get_args(annotation):
        yield from models(argument)


def keys() -> Iterator[str]:
    """Every key that may be written in a policy or a test file."""
    for root in (PolicyFileSchema, DefinitionSchema, CaseFileSchema):
        for model in models(root):
            yield from (field.alias or name for name, field in model.model_fields.items())


# Which model a table of keys is about, by what stands above it, or heads it.
TABLES: dict[str, type[BaseModel]] = {
    "Files": PolicyFileSchema,
    "A definition": DefinitionSchema,
    "identity": IdentitySchema,
    "parameters": ParameterSchema,
    "windows": WindowSchema,
    "approval": ApprovalSchema,
    "deadline, ends, limits": DefinitionSchema,
    "secret": SecretSchema,
    "database": DatabaseSchema,
    "token": TokenSchema,
    "pki": PkiSchema,
    "ssh": SshSchema,
    "given": GivenSchema,
    "expect": ExpectSchema,
}


def documented() -> Iterator[tuple[str, str]]:
    """Every key that a table of the page explains, with its table."""
    above, table = "", ""
    for line in PROSE.splitlines():
        if found := re.match(r"(?:#+ (.+)|`([a-z]+)`:)$", line):
            above = found[1] or found[2]
        elif found := re.match(r"\| (?:key|`(given|expect)`) \|", line):
            table = found[1] or above
        elif not line.startswith("|"):
            table = ""
        elif table and not line.startswith("|--"):
            yield from ((table, key) for key in re.findall(r"`([^`]+)`", line.split("|")[1]))


def field(model: type[BaseModel], key: str) -> FieldInfo | None:
    """The field that is written as this key."""
    fields = model.model_fields.items()
    return next((each for name, each in fields if (each.alias or name) == key), None)


@pytest.mark.parametrize(("table", "key"), sorted(set(documented())))
def test_every_explained_key_exists(table: str, key: str) -> None:
    """What a table explains may be written; a dotted key, inside the one before its dot."""
    model = TABLES[table]
    *outer, last = key.split(".")
    for step in outer:
        held = field(model, step)
        assert held is not None, step
        model = next(models(held.annotation))

    assert field(model, last) is not None


def test_every_table_is_found() -> None:
    """A table that is not looked at would hold whatever it likes."""
    assert {table for table, _ in documented()} == TABLES.keys()


@pytest.mark.parametrize("key", sorted(set(keys())))
def test_every_key_is_explained(key: str) -> None:
    """Each key of the models stands in the page, by itself or after a dot."""
    words = {word for text in QUOTED for word in re.split(r"[^a-z_]+", text)}

    assert key in words


@pytest.mark.parametrize("name", sorted(FIXED))
def test_every_variable_is_explained(name: str) -> None:
    """Each variable that a condition may read."""
    assert name in QUOTED


@pytest.mark.parametrize("name", sorted(DEFAULT_CLASSES))
def test_every_class_is_named(name: str) -> None:
    """The built-in ones."""
    assert name in QUOTED


def test_the_example_loads_and_passes_its_own_test() -> None:
    """The first block is a policy without a doubt, the second its cases."""
    policy_text, cases_text = BLOCKS
    policy = load(policy_text)

    assert lint(policy, DEFAULT_CLASSES, NOON) == ()
    for case in read_cases("cases.yaml", cases_text.encode()):
        assert run_case(policy, case).mismatches == ()
