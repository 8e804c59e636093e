"""`taskmint policy explain`: what would be decided, and why; or what an identity may ask for."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from taskmint.model.caller import IdentityMethod, TokenBinding
from taskmint.model.scope import (
    BindKind,
    CallerFacts,
    Decision,
    DecisionInput,
    Denial,
    HistoryFacts,
    RequestFacts,
)
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.access import tasks_of, terms_of
from taskmint.policy.decide import decide, decide_shadow
from taskmint.policy.definition import Policy
from taskmint.yaml_model import closest, duration_text, parse_duration

from .policy_inputs import (
    EXIT_FINDING,
    Command,
    errors_to_exit_codes,
    output_option,
    policy_options,
    print_json,
    read,
    sources,
)


def _spiffe_id(ctx: click.Context, param: click.Parameter, text: str) -> SpiffeId:
    try:
        return SpiffeId.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _instant(ctx: click.Context, param: click.Parameter, text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("write RFC 3339: 2027-01-31T08:00:00Z", ctx, param) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _pairs(ctx: click.Context, param: click.Parameter, texts: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if not all(name and separator for name, separator, _ in pairs):
        raise click.BadParameter("write NAME=VALUE", ctx, param)
    return {name: value for name, _, value in pairs}


def _files(ctx: click.Context, param: click.Parameter, texts: Iterable[str]) -> dict[str, str]:
    paths = _pairs(ctx, param, texts)
    return {name: read(Path(path)).decode("ascii", "replace") for name, path in paths.items()}


def _duration(ctx: click.Context, param: click.Parameter, text: str | None) -> timedelta | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


ASKING: Final = (
    click.option("--as", "caller", required=True, metavar="SPIFFE_ID", callback=_spiffe_id),
    click.option("--uid", type=click.IntRange(min=0), default=1000, show_default=True),
    click.option(
        "--method",
        type=click.Choice([method.value for method in IdentityMethod]),
        default=IdentityMethod.JWT_SVID.value,
        show_default=True,
    ),
    click.option(
        "--token",
        type=click.Choice([binding.value for binding in TokenBinding]),
        default=TokenBinding.UID.value,
        show_default=True,
        help="What the node binds JWT-SVIDs to.",
    ),
    click.option("-p", "--parameter", "parameters", multiple=True, callback=_pairs),
    click.option("--purpose", default=""),
    click.option("--ticket"),
    click.option("--context", multiple=True, metavar="NAME=VALUE", callback=_pairs),
    click.option("--ttl", metavar="DURATION", callback=_duration),
    click.option("--bind", type=click.Choice([kind.value for kind in BindKind])),
    click.option(
        "--public-key", "public_keys", multiple=True, metavar="ENTITLEMENT=PATH", callback=_files
    ),
)
_CIRCUMSTANCES: Final = (
    click.option("--task", help="The definition that is asked for; without it, all are listed."),
    click.option("--at", metavar="TIME", callback=_instant, help="RFC 3339; now when left out."),
    click.option("--host", multiple=True, metavar="LABEL=VALUE", callback=_pairs),
    click.option("--grants", type=click.IntRange(min=0), default=0, help="In the last hour."),
    click.option("--denials", type=click.IntRange(min=0), default=0, help="In the last hour."),
    click.option("--processes", type=click.IntRange(min=0), default=0, help="In the last hour."),
    click.option("--approved", is_flag=True, help="As if the approval had been given."),
)


def with_options(options: Sequence[Command]) -> Command:
    """Add each of these options."""

    def added(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return added


@click.command()
@policy_options
@with_options((*ASKING, *_CIRCUMSTANCES))
@output_option
@errors_to_exit_codes
def explain(paths: tuple[Path, ...], config_file: Path | None, output: str, **asked: Any) -> None:
    """
    Say what would be decided, and why, clause by clause; exits 1 for a denial.

    Without --task, list what the identity may ask for, and on which terms.
    """
    policy = sources(paths, config_file).load()
    if asked["task"] is None:
        _list_tasks(policy, asked["caller"], output)
        return
    if asked["task"] not in policy.definitions:
        # A caller is not told; whoever holds the policy file may be.
        hint = closest(asked["task"], policy.definitions)
        click.echo(f"there is no task {asked['task']}; {hint}", err=True)
    given = _input(asked)
    decision, shadow = decide(policy, given), decide_shadow(policy, given)
    if output == "json":
        print_json({"decision": _json(decision), "shadow": shadow and _json(shadow)})
    else:
        _print(decision)
        if shadow is not None:
            click.echo("shadow, which grants nothing:")
            _print(shadow)
    sys.exit(EXIT_FINDING if isinstance(decision, Denial) else 0)


def _input(asked: dict[str, Any]) -> DecisionInput:
    return DecisionInput(
        caller=CallerFacts(
            asked["caller"],
            asked["uid"],
            IdentityMethod(asked["method"]),
            TokenBinding(asked["token"]),
        ),
        request=RequestFacts(
            task=asked["task"],
            parameters=asked["parameters"],
            purpose=asked["purpose"],
            ticket=asked["ticket"],
            context=asked["context"],
            ttl=asked["ttl"],
            bind=None if asked["bind"] is None else BindKind(asked["bind"]),
            public_keys=asked["public_keys"],
        ),
        now=asked["at"],
        host=asked["host"],
        history=HistoryFacts(asked["grants"], asked["denials"], asked["processes"]),
        approved=asked["approved"],
    )


def _list_tasks(policy: Policy, caller: SpiffeId, output: str) -> None:
    found = tasks_of(policy, caller)
    if output == "json":
        print_json(
            [
                {
                    "task": definition.name,
                    "owner": definition.owner,
                    "parameters": {each.name: str(each) for each in definition.parameters},
                    "terms": list(terms_of(definition)),
                }
                for definition in found
            ]
        )
    else:
        for definition in found:
            click.echo(f"{definition.name} ({definition.owner}) {definition.description}".rstrip())
            for parameter in definition.parameters:
                click.echo(f"    {parameter.name}: {parameter}")
            for term in terms_of(definition):
                click.echo(f"    only {term}")
        if not found:
            click.echo(f"{caller} may ask for nothing")
    sys.exit(0 if found else EXIT_FINDING)


def _print(decision: Decision) -> None:
    for line in decision.trace:
        click.echo(f"    {line}")
    if isinstance(decision, Denial):
        needed = " (an approval would do)" if decision.approval is not None else ""
        click.echo(f"denied, {decision.code}: {decision.detail}{needed}")
        return
    click.echo(f"granted for {duration_text(decision.lifetime)}:")
    for each in decision.entitlements:
        click.echo(f"    {each.name}: {each.method} {each.mount}/{each.path}")


def _json(decision: Decision) -> dict[str, object]:
    common = {"trace": list(decision.trace), "policy_digest": decision.policy_digest}
    if isinstance(decision, Denial):
        return {
            "granted": False,
            "code": decision.code,
            "detail": decision.detail,
            "approval_needed": decision.approval is not None,
            **common,
        }
    return {
        "granted": True,
        "task": decision.definition,
        "token_policy": decision.token_policy,
        "lifetime_seconds": decision.lifetime.total_seconds(),
        "lease_seconds": decision.dead_man.total_seconds(),
        "scope": {
            each.name: {
                "kind": each.kind.value,
                "method": each.method,
                "path": f"{each.mount}/{each.path}",
                "body": dict(each.body),
            }
            for each in decision.entitlements
        },
        **common,
    }
