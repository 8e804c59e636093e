"""The arguments of `taskmint run`. Wrong use is 125: every other code belongs to the command."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, NoReturn, TypeVar

from .run_delivery import File, Variable, parse_env, parse_file

OURS: Final = 125  # as env(1) and timeout(1): the wrapper itself failed

_DURATION = re.compile(r"([0-9]{1,7})(s|m|h)", re.ASCII)
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_BINDS: Final = ("peer", "parent", "session", "unit")
_KEY_CHARACTERS: Final = 8192  # the daemon takes no more
_EPILOG: Final = """\
exit codes: the command's own; 128+N when signal N ended it; 126 or 127 when it cannot be executed
or found; 125 when taskmint itself failed

approval: where the definition needs one, who may give it is told on standard error and waited for;
a signal that asks for an end cancels the request

environment: TASKMINT_SOCKET, SPIFFE_ENDPOINT_SOCKET; TASKMINT_DAEMON_ID, the daemon's SPIFFE ID,
which it must prove in mutual TLS before it learns anything
"""


T = TypeVar("T")


class Options(NamedTuple):
    """What was asked for; `body` is that of `POST /v1/tasks`."""

    body: dict[str, object]
    variables: tuple[Variable, ...]
    files: tuple[File, ...]
    command: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(OURS, f"taskmint run: {message}\n")


def parse(arguments: Sequence[str]) -> Options:
    """Read the arguments after `run`; exits for --help and for wrong use."""
    parser = run_parser()
    before, after = _split(arguments)
    given = parser.parse_args(before)
    if not after:
        parser.error("write the command after --")
    claims = {
        "task": given.task,
        "parameters": dict(given.p),
        "purpose": given.purpose,
        "ticket": given.ticket,
        "ttl_seconds": given.ttl,
        "bind": given.bind,
        "public_keys": dict(given.public_key) or None,
    }
    return Options(
        body={name: value for name, value in claims.items() if value is not None},
        variables=tuple(given.env),
        files=tuple(given.file),
        command=tuple(after),
    )


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def run_parser() -> argparse.ArgumentParser:
    """Build the parser of what stands before `--`."""
    parser = _Parser(
        prog="taskmint run",
        usage="taskmint run --task NAME [options] -- COMMAND [ARGUMENT]...",
        description="Run COMMAND inside a task: it has the task's credentials until it exits, "
        "and not longer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--task", required=True, metavar="NAME", help="the task definition to run inside")
    add(
        "-p",
        action="append",
        default=[],
        type=_parameter,
        metavar="KEY=VALUE",
        help="a parameter of the definition; repeat it for more",
    )
    add("--purpose", metavar="TEXT", help="why; it stands in the ledger")
    add("--ticket", metavar="ID", help="the ticket this belongs to")
    add("--ttl", type=_seconds, metavar="DURATION", help="the deadline: 90s, 15m, 1h")
    add("--bind", choices=_BINDS, help="whose end ends the task; by default as the policy says")
    _add_keys_and_deliveries(parser)
    return parser


def _add_keys_and_deliveries(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--public-key",
        action="append",
        default=[],
        type=_public_key,
        metavar="ENTITLEMENT=PATH",
        help="a file with your own certificate request (pki) or OpenSSH public key (ssh) to sign",
    )
    add(
        "--env",
        action="append",
        default=[],
        type=_checked(parse_env),
        metavar="VAR=ENTITLEMENT.FIELD",
        help="put a field of a credential into the command's environment",
    )
    add(
        "--file",
        action="append",
        default=[],
        type=_checked(parse_file),
        metavar="PATH=ENTITLEMENT[.FIELD|:TEMPLATE]",
        help="write a credential to a file on tmpfs: all of it as JSON, one field, or a template "
        "with {field}s in it",
    )


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _parameter(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError("write it as key=value")
    return key, value


def _public_key(text: str) -> tuple[str, str]:
    """Read a public key; what it must be is for the daemon to say."""
    name, equals, path = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("write it as entitlement=path")
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), encoding="ascii") as file:
            content = file.read(_KEY_CHARACTERS + 1)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{path} is not text") from None
    if "PRIVATE KEY" in content:
        raise argparse.ArgumentTypeError(f"{path} is a private key; that stays with you")
    if len(content) > _KEY_CHARACTERS:
        raise argparse.ArgumentTypeError(f"{path} is longer than {_KEY_CHARACTERS} characters")
    return name, content


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError("write it as 90s, 15m or 1h")
    return int(found[1]) * _UNIT_SECONDS[found[2]]
