"""The man page: generated from the commands, committed, and clean roff."""

import re
import shutil
import subprocess

import click
import pytest

from source_tree import REPOSITORY
from taskmint.cli.main import main
from taskmint.cli.manual import page

COMMITTED = REPOSITORY / "docs" / "taskmint.1"


def test_the_committed_page_is_the_generated_one() -> None:
    """After a change of a command: python -m taskmint.cli.manual > docs/taskmint.1."""
    assert COMMITTED.read_text(encoding="utf-8") == page()


def test_every_command_is_in_it() -> None:
    """Each of the tree, and those of groups."""
    text = page().replace("\\-", "-")
    with click.Context(main, info_name="taskmint") as ctx:
        for name in main.list_commands(ctx):
            assert f'.SS "taskmint {name} ' in text
    for inner in ("audit verify", "policy explain", "vault apply", "config show", "dev up"):
        assert f'.SS "taskmint {inner} ' in text


def test_it_is_ascii() -> None:
    """A page for every terminal."""
    assert page().isascii()


@pytest.mark.parametrize("formatter", ["groff", "mandoc"])
def test_the_formatter_has_nothing_to_say(formatter: str) -> None:
    """Every warning switched on; what is shown has the commands and their options."""
    if shutil.which(formatter) is None:
        pytest.skip(f"no {formatter} here")
    command = {
        "groff": ["groff", "-man", "-ww", "-Tascii", "-P-c"],
        "mandoc": ["mandoc", "-W", "warning", "-T", "ascii"],
    }[formatter]
    shown = subprocess.run(
        [*command, str(COMMITTED)], capture_output=True, text=True, check=True, timeout=50
    )

    assert shown.stderr == ""
    plain = re.sub(".\b", "", shown.stdout)
    assert "taskmint doctor" in plain
    assert "--definition NAME" in plain
    assert "EXIT STATUS" in plain
