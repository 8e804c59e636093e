"""
`taskmint approvals`: see what waits for an approval, and say yes or no to exactly that.

What is signed is the digest of the plan that was printed, computed here and not taken from the
daemon. Exit codes: 0 done, 1 refused, 2 wrong use, 3 nobody answers.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives.asymmetric import ed25519

from taskmint.canonical import digest
from taskmint.identity.approver_keys import public_jwk

from . import admin_socket
from .admin_socket import EXIT_FINDING, ask, common, understood
from .approval_signing import encode, signed, signing_key, statement
from .approval_text import done_text, list_text, show_text
from .tasks import task_id

Command = TypeVar("Command", bound=Callable[..., Any])

_mount = click.option("--mount", default="transit", show_default=True, help="Where transit is.")


@click.group()
def approvals() -> None:
    """See what waits for an approval, and approve or deny it."""


@approvals.command("list")
@common
def list_(socket: str, output: str) -> None:
    """List what waits."""
    reply = ask(socket, "GET", "/v1/admin/approvals")
    admin_socket.show(reply, output, list_text)


@approvals.command()
@common
@click.argument("task", metavar="TASK_ID", callback=task_id)
def show(socket: str, output: str, task: str) -> None:
    """Tell everything that is signed: who, what exactly, why, how long; and what is unusual."""
    reply = ask(socket, "GET", f"/v1/admin/approvals/{task}")
    admin_socket.show(reply, output, show_text)


def _saying(command: Command) -> Command:
    """Add the options of saying something about a request."""
    for option in (
        click.argument("task", metavar="TASK_ID", callback=task_id),
        click.option("--key", metavar="transit:NAME|jwk:FILE", help="The key to sign with."),
        _mount,
        click.option(
            "--statement",
            "ready",
            type=click.File(),
            help="A statement that was signed elsewhere; `-` for standard input.",
        ),
        click.option("--print", "only_print", is_flag=True, help="Print what is to be signed."),
        click.option("--local", is_flag=True, help="By your user id, where that is switched on."),
        click.option(
            "--valid",
            type=click.IntRange(1, 1440),
            default=30,
            show_default=True,
            help="Minutes until the statement expires.",
        ),
        click.option("--yes", is_flag=True, help="Do not ask."),
    ):
        command = option(command)
    return common(command)


@approvals.command()
@_saying
def approve(**options: Any) -> None:
    """Approve exactly the plan that is shown."""
    _say("approve", **options)


@approvals.command()
@_saying
def deny(**options: Any) -> None:
    """Deny a request; one denial is enough."""
    _say("deny", **options)


@approvals.command()
@_saying
def withdraw(**options: Any) -> None:
    """Take your approval back; a task that rests on it ends."""
    _say("withdraw", **options)


@approvals.command()
@click.option("--key", metavar="transit:NAME|jwk:FILE", help="The key whose public half to print.")
@_mount
@click.option(
    "--new",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Make an Ed25519 key, for places without transit; the file must not exist.",
)
def keys(key: str | None, mount: str, new: Path | None) -> None:
    """Print a public key as the JWK set that the daemon's config names."""
    if (key is None) == (new is None):
        raise click.UsageError("give --key, or --new")
    if new is not None:
        _make(new)
        key = f"jwk:{new}"
    held = signing_key(str(key), mount)
    click.echo(json.dumps({"keys": [public_jwk(held.public)]}, indent=2))


def _make(path: Path) -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": encode(private.public_key().public_bytes_raw()),
        "d": encode(private.private_bytes_raw()),
    }
    try:
        path.touch(0o600, exist_ok=False)
        path.write_text(json.dumps(jwk))
    except OSError as error:
        click.echo(f"taskmint: {path}: {error.strerror}", err=True)
        sys.exit(EXIT_FINDING)


def _say(outcome: str, *, socket: str, output: str, task: str, **how: Any) -> None:
    ways = (how["key"] is not None, how["ready"] is not None, how["only_print"], how["local"])
    if sum(ways) != 1:
        raise click.UsageError("give exactly one of --key, --statement, --print, --local")
    if how["ready"] is not None:
        _bring(socket, output, how["ready"].read().strip())
        return
    reply = ask(socket, "GET", f"/v1/admin/approvals/{task}")
    with understood():
        shown = _checked(reply)
        text = show_text(reply)
    said = statement(task, shown, outcome, int(time.time()) + how["valid"] * 60)
    if how["only_print"]:
        click.echo(json.dumps(said, sort_keys=True, separators=(",", ":")))
        return
    click.echo(text, err=True)
    if not how["yes"]:
        click.confirm(f"\n{outcome} this?", abort=True, err=True)
    if how["local"]:
        body = {name: said[name] for name in ("task", "scope_digest", "policy_digest", "outcome")}
        answer = ask(socket, "POST", "/v1/admin/approvals/local", body=json.dumps(body).encode())
        admin_socket.show(answer, output, done_text)
        return
    _bring(socket, output, signed(said, signing_key(how["key"], how["mount"])))


def _bring(socket: str, output: str, text: str) -> None:
    body = json.dumps({"statement": text}).encode()
    answer = ask(socket, "POST", "/v1/admin/approvals", body=body)
    admin_socket.show(answer, output, done_text)


def _checked(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the daemon shows, if its digest is that of the plan which is printed."""
    shown: Mapping[str, Any] = reply["approval"]
    if digest(dict(shown["plan"])) != shown["scope_digest"] or shown["plan"]["task"] != reply["id"]:
        click.echo("taskmint: the digest is not that of the plan: nothing was signed", err=True)
        sys.exit(EXIT_FINDING)
    return shown
