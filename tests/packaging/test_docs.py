"""README and docs say what is true: their shell blocks run, their links lead somewhere."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import REPOSITORY

from fenced import BOOTED, PAGES, blocks

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")

# `make` would run this very suite again: its targets are resolved, not made. The demo has its own
# test, and this suite is the other one.
SHIM = f'#!/bin/sh\nexec /usr/bin/make --dry-run --directory="{REPOSITORY}" "$@" > /dev/null\n'


def parameters(info: str) -> list[object]:
    """Every block of a kind as a pytest parameter, named by where it stands."""
    found = [block for page in PAGES for block in blocks(page) if block.info == info]
    return [pytest.param(block.text, id=block.where) for block in found]


@pytest.mark.parametrize("block", parameters("sh"))
def test_a_shell_block_runs(block: str, tmp_path: Path) -> None:
    """In a shell of its own it succeeds, where a checkout's .venv and config are at hand."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / "bin").mkdir()
    make = tmp_path / "bin" / "make"
    make.write_text(SHIM)
    make.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (tmp_path / "output").open("w+") as output:
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=50,
        )
        output.seek(0)
        assert result.returncode == 0, output.read()


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """`sh` runs here; `sh root`, on one page, in a machine that boots (tests/boot); `sh vault`, on
    one page, beside a real Vault (tests/e2e/test_approvals.py)."""
    elsewhere = {
        block.where
        for page in PAGES
        for block in blocks(page)
        if block.info.startswith(("sh", "bash", "console"))
        and block.info != "sh"
        and not (block.info == "sh root" and page == BOOTED)
        and not (block.info == "sh vault" and page.name == "approvals.md")
    }

    assert elsewhere == set()


@pytest.mark.parametrize("block", parameters("python"))
def test_a_python_block_imports_what_exists(block: str) -> None:
    """It parses, and every name that it imports is there."""
    indented = "async def example():\n" + "".join(f"    {line}\n" for line in block.splitlines())
    imports = [node for node in ast.walk(ast.parse(indented)) if isinstance(node, ast.ImportFrom)]

    assert imports
    for node in imports:
        assert node.module is not None
        names = ", ".join(alias.name for alias in node.names)
        subprocess.run([sys.executable, "-c", f"from {node.module} import {names}"], check=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    """A relative link names a file of the repository."""
    for found in LINK.finditer(page.read_text(encoding="utf-8")):
        assert (page.parent / found[1]).exists(), found[1]


def test_the_readme_names_what_exists() -> None:
    """The table of places, and the two commands that CI runs."""
    text = PAGES[0].read_text(encoding="utf-8")
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    places = re.findall(r"`((?:config|docs|systemd|Dockerfile)[^`]*)`", text)

    assert len(places) >= 6
    assert all((REPOSITORY / place).exists() for place in places), places
    assert "make test" in text
    assert "make test" in ci


def test_every_promise_stands_in_the_readme_with_its_limits() -> None:
    """P1 to P12, each once, none without a limit."""
    text = PAGES[0].read_text(encoding="utf-8")
    rows = re.findall(r"^\| P(\d+) \| (.+) \| (.+) \|$", text, re.MULTILINE)

    assert [int(number) for number, _, _ in rows] == list(range(1, 13))
    assert all(promise and limits for _, promise, limits in rows)


def test_the_index_leads_to_every_page() -> None:
    """docs/README.md names each page, and decisions/README.md each decision."""
    for directory in (REPOSITORY / "docs", REPOSITORY / "docs" / "decisions"):
        index = (directory / "README.md").read_text(encoding="utf-8")
        for page in directory.glob("[!R]*.md"):
            assert f"({page.name})" in index, page.name


def test_the_threat_model_speaks_of_every_duty_and_limit() -> None:
    """Attackers, a compromised daemon, root, what is not promised: each has its section."""
    text = (REPOSITORY / "docs" / "threat-model.md").read_text(encoding="utf-8")

    for heading in (
        "Attackers", "A compromised daemon", "Root on the node", "What is not promised",
        "Your duties",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in text


def test_a_decision_is_half_a_page() -> None:
    """Why, what, and instead of what; in at most forty lines."""
    for page in (REPOSITORY / "docs" / "decisions").glob("0*.md"):
        lines = page.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if line[:3] == "## "] == [
            "## Why",
            "## What",
            "## Instead of",
        ]
        assert len(lines) < 40
