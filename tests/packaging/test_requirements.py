"""The pinned files install what pyproject.toml asks for, from anywhere, and nothing else."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from source_tree import REPOSITORY

FILES = ("build", "runtime", "demo", "otel", "dev")
PIN = re.compile(
    r"^([a-z0-9._-]+)==([^ ]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def text_of(name: str) -> str:
    """One pinned file."""
    return (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, Version]:
    """Package -> the one version."""
    return {found[1]: Version(found[2]) for found in PIN.finditer(text_of(name))}


def asked_for(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for with these extras."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [Requirement(line) for line in project["dependencies"]] + [
        Requirement(line) for extra in extras for line in optional[extra]
    ]


@pytest.mark.parametrize(
    ("name", "extras"),
    [("runtime", ()), ("demo", ("demo",)), ("otel", ("otel",)), ("dev", ("demo", "otel", "dev"))],
)
def test_every_dependency_is_pinned_within_its_range(name: str, extras: tuple[str, ...]) -> None:
    """After a change of pyproject.toml, `make requirements` is owed."""
    pinned = pins(name)
    for requirement in asked_for(*extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, requirement
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes(name: str) -> None:
    """pip's --require-hashes would refuse the whole file otherwise; here it is said which line."""
    lines = [line for line in text_of(name).splitlines() if line and line[0] not in " #"]

    assert len(lines) == len(pins(name)) > 0


@pytest.mark.parametrize("name", FILES)
def test_no_address_is_written_down(name: str) -> None:
    """Where packages come from is the installing machine's business."""
    assert not re.search(r"://|--(?:index|extra|find|trusted)", text_of(name))


def test_the_files_agree() -> None:
    """What is installed twice is installed once: the same version in every file."""
    versions: dict[str, set[Version]] = {}
    for name in FILES:
        for package, version in pins(name).items():
            versions.setdefault(package, set()).add(version)

    assert {package: found for package, found in versions.items() if len(found) > 1} == {}
