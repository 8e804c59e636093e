"""docs/policy.md is the whole language: held against the models, and its examples are run."""

import re
from collections.abc import Iterator
from typing import get_args

import pytest
from pydantic import BaseModel

from policy.asking import NOON, REPOSITORY, load
from taskmint.config import DEFAULT_CLASSES
from taskmint.policy.case_schema import CaseFileSchema
from taskmint.policy.cases import read_cases, run_case
from taskmint.policy.condition import FIXED
from taskmint.policy.lint import lint
from taskmint.policy.schema import DefinitionSchema, PolicyFileSchema

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
