"""
`taskmint policy`: check, test and question policy files, without a daemon.

Exits 0 for yes, 1 for a finding, a denial, a failed test, anything that widened or an answer that
changed, 2 for wrong usage, 3 when a ledger cannot be read, 4 when a file cannot be used.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from taskmint.errors import ConfigError, Finding
from taskmint.policy.access import Access, given_policies, who_can
from taskmint.policy.change import Direction
from taskmint.policy.difference import difference
from taskmint.policy.json_schema import policy_json_schema
from taskmint.policy.lint import lint

from .policy_enumerate import span
from .policy_explain import explain
from .policy_inputs import (
    EXIT_FINDING,
    config_option,
    errors_to_exit_codes,
    finding_json,
    output_option,
    policy_options,
    print_json,
    sources,
)
from .policy_replay import replay
from .policy_test import test

_PATHS: Final = click.argument(
    "paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]..."
)


@click.group()
def policy() -> None:
    """Check and question policy files."""


policy.add_command(explain)
policy.add_command(replay)
policy.add_command(span)
policy.add_command(test)


@policy.command()
@_PATHS
@config_option
@click.option("--strict", is_flag=True, help="Exit 1 for lints as well.")
@output_option
@errors_to_exit_codes
def check(paths: tuple[Path, ...], config_file: Path | None, output: str, *, strict: bool) -> None:
    """
    Load policy files, and say everything that is wrong or doubtful.

    PATH is a policy file or a directory of *.yaml; without one, the configuration's are checked.
    With a configuration, what its daemon may not serve is wrong as well.
    """
    findings: tuple[Finding, ...] = ()
    lints: tuple[Finding, ...] = ()
    summary = ""
    found: dict[str, str | int] = {}
    given = sources(paths, config_file)
    try:
        loaded = given.load_for_daemon()
    except ConfigError as error:
        findings = tuple(sorted(error.findings))
    else:
        lints = lint(loaded, given.classes, datetime.now(UTC))
        enforced, shadows = len(loaded.definitions), len(loaded.shadows)
        found = {"enforced": enforced, "in_shadow": shadows, "digest": loaded.digest}
        summary = f"fine: {enforced} enforced, {shadows} in shadow; digest {loaded.digest}"
    if output == "json":
        print_json(
            {
                "valid": not findings,
                **found,
                "findings": [finding_json(finding) for finding in findings],
                "lints": [finding_json(finding) for finding in lints],
            }
        )
    else:
        for finding in findings:
            click.echo(str(finding))
        for finding in lints:
            click.echo(f"{finding} (lint)")
        click.echo(summary or f"{len(findings)} findings; nothing was loaded")
    sys.exit(EXIT_FINDING if findings or (strict and lints) else 0)


@policy.command("who-can")
@click.argument("vault_path")
@policy_options
@output_option
@errors_to_exit_codes
def who_can_reach(
    vault_path: str, paths: tuple[Path, ...], config_file: Path | None, output: str
) -> None:
    """
    Say who reaches a Vault path, and through which task; exits 1 when nobody does.

    VAULT_PATH stands below /v1/; in it `*` is any one segment. What a policy of the Vault admin
    allows is not known here: tasks that hand such a policy over are listed beside.
    """
    loaded = sources(paths, config_file).load()
    found, unknown = who_can(loaded, vault_path), given_policies(loaded)
    if output == "json":
        told = [(access, True) for access in found] + [(access, False) for access in unknown]
        print_json([_access_json(access, certain=certain) for access, certain in told])
    else:
        for access in found:
            _print_access(access)
        if not found:
            click.echo(f"nobody reaches {vault_path}")
        if unknown:
            click.echo("beside that, as far as the Vault admin lets it:")
        for access in unknown:
            _print_access(access)
    sys.exit(0 if found else EXIT_FINDING)


def _print_access(access: Access) -> None:
    click.echo(f"{access.request}  through {access.task} ({access.owner})")
    for pattern in access.who:
        click.echo(f"    {pattern}")
    for term in access.terms:
        click.echo(f"    only {term}")


def _access_json(access: Access, *, certain: bool) -> dict[str, object]:
    return {
        "certain": certain,
        "request": access.request,
        "task": access.task,
        "entitlement": access.entitlement,
        "owner": access.owner,
        "who": list(access.who),
        "terms": list(access.terms),
    }


@policy.command()
@click.argument("old", type=click.Path(exists=True, path_type=Path))
@click.argument("new", type=click.Path(exists=True, path_type=Path))
@config_option
@output_option
@errors_to_exit_codes
def diff(old: Path, new: Path, config_file: Path | None, output: str) -> None:
    """Say in words who gained and lost what; exits 1 when anything widened."""
    before = sources([old], config_file).load()
    after = sources([new], config_file).load()
    changes = difference(before, after)
    if output == "json":
        print_json(
            [
                {
                    "direction": change.direction.value,
                    "task": change.task,
                    "sentence": change.sentence,
                }
                for change in changes
            ]
        )
    else:
        for change in changes:
            click.echo(f"{change.direction.value:<9} {change.sentence}")
        if not changes:
            click.echo("nothing that decides has changed")
    widened = any(change.direction is Direction.WIDENED for change in changes)
    sys.exit(EXIT_FINDING if widened else 0)


@policy.command()
def schema() -> None:
    """Print the JSON Schema of a policy file, for editors."""
    print_json(policy_json_schema())
