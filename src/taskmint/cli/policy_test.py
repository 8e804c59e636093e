"""`taskmint policy test`: the cases beside a policy, decided, with what no case exercised."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from taskmint.model.scope import Decision
from taskmint.policy.cases import Verdict, read_cases, run_case
from taskmint.policy.definition import Policy
from taskmint.policy.exercise import Clause, clauses, exercised

from .policy_inputs import (
    CASES,
    EXIT_FINDING,
    EXIT_USAGE,
    config_option,
    errors_to_exit_codes,
    leave,
    output_option,
    policy_files,
    print_json,
    read,
    sources,
)

_WHOLE: Final = 100


@click.command()
@click.argument(
    "paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]..."
)
@click.option(
    "--cases",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file of cases, or a directory; else tests/ beside the policy.",
)
@click.option(
    "--min-coverage",
    type=click.IntRange(0, _WHOLE),
    default=0,
    help="Fail when the cases exercise less than this per cent of the clauses.",
)
@config_option
@output_option
@errors_to_exit_codes
def test(
    paths: tuple[Path, ...],
    cases: tuple[Path, ...],
    min_coverage: int,
    config_file: Path | None,
    output: str,
) -> None:
    """
    Decide the cases beside a policy; exits 1 when one comes out otherwise than expected.

    PATH is a policy file or a directory of *.yaml. Cases are read from tests/*.yaml beside it; for
    a file from the one of its name there, if there is one.
    """
    given = sources(paths, config_file)
    policy = given.load()
    places = cases or tuple(dict.fromkeys(_beside(file, paths) for file in given.files))
    files = [file for place in places for file in policy_files(place) if file.is_file()]
    verdicts = [
        run_case(policy, case) for file in files for case in read_cases(str(file), read(file))
    ]
    if not verdicts:
        leave(EXIT_USAGE, f"there is no case in {', '.join(map(str, places))}")
    missed = _missed(policy, verdicts)
    reached = _per_cent(policy, missed)
    if output == "json":
        _print_json(verdicts, missed, reached)
    else:
        _print(verdicts, missed, reached)
    failed = any(verdict.mismatches for verdict in verdicts)
    sys.exit(EXIT_FINDING if failed or reached < min_coverage else 0)


def _beside(file: Path, named: tuple[Path, ...]) -> Path:
    """Find the cases of a policy file; those of its neighbours only when it was not named alone."""
    own = file.parent / CASES / file.name
    return own if file in named and own.is_file() else own.parent


def _missed(policy: Policy, verdicts: Iterable[Verdict]) -> list[Clause]:
    seen = exercised(policy, _decisions(verdicts))
    return [clause for clause in clauses(policy) if clause not in seen]


def _decisions(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, Decision]]:
    for verdict in verdicts:
        task = verdict.case.given.request.task
        yield task, verdict.decision
        if verdict.shadow is not None:
            yield f"{task}.shadow", verdict.shadow


def _per_cent(policy: Policy, missed: list[Clause]) -> int:
    """Round down, so that 100 means all."""
    return _WHOLE - -(-_WHOLE * len(missed) // len(clauses(policy)))


def _print(verdicts: list[Verdict], missed: list[Clause], reached: int) -> None:
    for verdict in verdicts:
        if not verdict.mismatches:
            continue
        click.echo(f"{verdict.case.file}:{verdict.case.line}: {verdict.case.name}")
        for mismatch in verdict.mismatches:
            click.echo(f"    {mismatch.what}:")
            for line in mismatch.expected.splitlines():
                click.echo(f"      - {line}")
            for line in mismatch.actual.splitlines():
                click.echo(f"      + {line}")
        for line in verdict.decision.trace:
            click.echo(f"      {line}")
    for clause in missed:
        click.echo(
            f"{clause.file}:{clause.line}: {clause.task}: no case exercised: {clause.clause}"
        )
    failed = sum(bool(verdict.mismatches) for verdict in verdicts)
    click.echo(f"{len(verdicts)} cases, {failed} failed; {reached}% of the clauses exercised")


def _print_json(verdicts: list[Verdict], missed: list[Clause], reached: int) -> None:
    print_json(
        {
            "cases": [
                {
                    "name": verdict.case.name,
                    "file": verdict.case.file,
                    "line": verdict.case.line,
                    "passed": not verdict.mismatches,
                    "mismatches": [
                        {"what": each.what, "expected": each.expected, "actual": each.actual}
                        for each in verdict.mismatches
                    ],
                    "trace": list(verdict.decision.trace),
                }
                for verdict in verdicts
            ],
            "coverage_percent": reached,
            "not_exercised": [{"task": clause.task, "clause": clause.clause} for clause in missed],
        }
    )
