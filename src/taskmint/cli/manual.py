"""
The man page taskmint(1), from the same tree of commands that parses: man(7) source out.

As a script it prints the page: python -m taskmint.cli.manual > docs/taskmint.1
"""

import re
import sys
from collections.abc import Iterator
from typing import Final

import click

from .main import main
from .run_options import run_parser

_EXIT_CODES: Final = (
    ("0", "Yes: done, ready, granted, nothing to mend."),
    ("1", "A finding, a refusal, or not proven yet."),
    ("2", "Wrong use."),
    ("3", "Nobody answers, or a file cannot be read."),
    ("4", "A configuration or a policy that will not do."),
)
_RUN_CODES: Final = (
    "`taskmint run` exits as the command that it wraps; by 128+N when signal N ended that; by 126 "
    "or 127 when it cannot be executed or found; by 125 when taskmint itself failed."
)
_ENVIRONMENT: Final = (
    ("TASKMINT_CONFIG", "The daemon's configuration."),
    ("TASKMINT_SOCKET", "The daemon's task socket."),
    ("TASKMINT_ADMIN_SOCKET", "The daemon's admin socket."),
    ("SPIFFE_ENDPOINT_SOCKET", "The SPIFFE agent's Workload API."),
    ("BAO_ADDR, VAULT_ADDR", "The Vault or OpenBao server."),
    ("BAO_NAMESPACE, VAULT_NAMESPACE", "Its namespace."),
    ("BAO_CACERT, VAULT_CACERT", "The CA to believe."),
    (
        "BAO_TOKEN, VAULT_TOKEN",
        "An admin's token, for the vault commands; never for the daemon.",
    ),
    ("NO_COLOR", "No colour, whatever the terminal."),
)
_FILES: Final = (
    ("/etc/taskmint/taskmint.yaml", "The daemon's configuration; every key is explained in it."),
    ("/etc/taskmint/policy.d/*.yaml", "The policy."),
    ("/run/taskmint/task.sock, admin.sock", "Where workloads and operators connect."),
    ("/var/lib/taskmint/ledger.db", "The record of every task."),
)


def page() -> str:
    """Return the page's source."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield '.\\" Generated: python -m taskmint.cli.manual > docs/taskmint.1'
    yield '.TH TASKMINT 1 "" "taskmint" "User Commands"'
    yield from (".SH NAME", "taskmint \\- credentials that exist only while their task runs")
    yield from (".SH SYNOPSIS", ".B taskmint", ".I COMMAND", "[options]")
    yield from (".SH DESCRIPTION", _text(main.help or ""))
    yield ".SH COMMANDS"
    with click.Context(main, info_name="taskmint") as top:
        yield from _commands(top)
    yield from _section("EXIT STATUS", _EXIT_CODES)
    yield from (".PP", _text(_RUN_CODES))
    yield from _section("ENVIRONMENT", _ENVIRONMENT)
    yield from _section("FILES", _FILES)


def _commands(above: click.Context) -> Iterator[str]:
    group = above.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=above) as ctx:
            yield from _command(ctx)
            yield from _commands(ctx)


def _command(ctx: click.Context) -> Iterator[str]:
    pieces = " ".join(ctx.command.collect_usage_pieces(ctx))
    yield f'.SS "{_text(ctx.command_path)} {_text(pieces)}"'
    for paragraph in re.split(r"\n\s*\n", ctx.command.help or ""):
        yield from (".PP", _text(" ".join(paragraph.replace("\b", "").split())))
    if ctx.command_path == "taskmint run":  # its parser is another, for the sake of its start
        own = run_parser()
        words = (own.usage, own.description, "Its options: taskmint run --help")
        for word in words:
            yield from (".PP", _text(word or ""))
        return
    for parameter in ctx.command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            yield from (".TP", f".B {_text(record[0])}", _text(" ".join(record[1].split())))


def _section(title: str, rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    yield f".SH {title}"
    for name, words in rows:
        yield from (".TP", f".B {_text(name)}", _text(words))


def _text(text: str) -> str:
    """Spell what roff would act on (groff_char(7), man(7))."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("`", "\\(ga")
    text = text.replace("'", "\\(aq").replace("…", "...")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


if __name__ == "__main__":
    sys.stdout.write(page())
