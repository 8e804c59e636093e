"""`taskmint policy enumerate`: every request that a policy spans, and what comes beside it."""

from collections.abc import Iterator
from pathlib import Path

import click

from taskmint.policy.definition import EntitlementTemplate, Policy
from taskmint.policy.enumerate import EnumeratedDefinition, enumerate_definitions
from taskmint.policy.reach import Way, given_way, ways
from taskmint.policy.template import Values

from .policy_inputs import (
    errors_to_exit_codes,
    output_option,
    policy_options,
    print_json,
    sources,
)


@click.command("enumerate")
@policy_options
@output_option
@errors_to_exit_codes
def span(paths: tuple[Path, ...], config_file: Path | None, output: str) -> None:
    """
    Print every request of Vault that the policy spans; `+` is any one segment.

    Beside it what the daemon writes for the task, and what a token may that is handed over.
    """
    loaded = sources(paths, config_file).load()
    spanned = enumerate_definitions(loaded)
    if output == "json":
        print_json([_definition_json(loaded, definition) for definition in spanned])
        return
    for definition in spanned:
        for combination in definition.combinations:
            values = " ".join(f"{name}={value}" for name, value in combination.parameters.items())
            click.echo(f"{definition.name} {values}".rstrip())
            click.echo(f"    policy {combination.token_policy}")
            for template in loaded.definitions[definition.name].entitlements:
                made = template.span(combination.parameters)
                click.echo(f"    {made.name}: {made.method} {made.mount}/{made.path}")
                for way in _beside(template, combination.parameters):
                    click.echo(f"        {way.verb} {way.path}, {', '.join(way.means)}")


def _beside(template: EntitlementTemplate, values: Values) -> Iterator[Way]:
    _, *others = ways(template, values)
    yield from others
    given = given_way(template)
    if given is not None:
        yield given


def _definition_json(loaded: Policy, definition: EnumeratedDefinition) -> dict[str, object]:
    templates = loaded.definitions[definition.name].entitlements
    return {
        "task": definition.name,
        "token_role": definition.token_role,
        "combinations": [
            {
                "token_policy": combination.token_policy,
                "parameters": dict(combination.parameters),
                "requests": {
                    template.name: _entitlement_json(template, combination.parameters)
                    for template in templates
                },
            }
            for combination in definition.combinations
        ],
    }


def _entitlement_json(template: EntitlementTemplate, values: Values) -> dict[str, object]:
    made = template.span(values)
    return {
        "method": made.method,
        "path": f"{made.mount}/{made.path}",
        "body": dict(made.body),
        "beside": [
            {"does": way.verb, "path": way.path, "means": list(way.means)}
            for way in _beside(template, values)
        ],
    }
