"""
`taskmint policy replay`: the requests of a ledger, answered by another policy.

The safe way to adopt a policy: what it would have changed is told before it decides anything.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import click

from taskmint.errors import Unavailable
from taskmint.ledger.chain import is_intact
from taskmint.ledger.reader import LedgerReader
from taskmint.ledger.rows import StoredRow, clear_damage, entry_of
from taskmint.model.printable import printable
from taskmint.policy.load import Policy
from taskmint.policy.shadow import Verdict
from taskmint.tasks.replay import DECISIONS, Replayed, replayed

from .policy_inputs import (
    EXIT_FINDING,
    errors_to_exit_codes,
    leave,
    output_option,
    policy_options,
    print_json,
    sources,
)

EXIT_UNREACHABLE: Final = 3
PATIENCE_SECONDS: Final = 2.0
_UNDECIDABLE: Final = "undecidable"

T = TypeVar("T")


@click.command()
@click.argument("ledger", type=click.Path(path_type=Path))
@policy_options
@output_option
@errors_to_exit_codes
def replay(ledger: Path, paths: tuple[Path, ...], config_file: Path | None, output: str) -> None:
    """
    Answer every request that a ledger holds by other policy files; exits 1 when an answer changed.

    Each is decided with its recorded time, labels, history and claims; limits are not applied.
    Where the claims have been purged, it cannot be decided.
    """
    policy = sources(paths, config_file).load()
    answers: list[Replayed] = []
    counts: Counter[str] = Counter()
    try:
        with LedgerReader.open(ledger) as reader:
            rows = with_bar(reader.rows(), reader.count(), time.monotonic)
            for answer in _answers(policy, rows):
                counts[answer.verdict or _UNDECIDABLE] += 1
                if answer.verdict is not Verdict.SAME:
                    answers.append(answer)
    except Unavailable as error:
        leave(EXIT_UNREACHABLE, f"{error.detail}{f'; {error.fix}' if error.fix else ''}")
    if output == "json":
        _print_json(answers, counts)
    else:
        _print(answers, counts)
    changed = counts.total() - counts[Verdict.SAME] - counts[_UNDECIDABLE]
    sys.exit(EXIT_FINDING if changed else 0)


def _answers(policy: Policy, rows: Iterable[StoredRow]) -> Iterator[Replayed]:
    for stored in rows:
        body = stored.row.body
        if body.event not in DECISIONS:
            continue
        problem = _damage(stored)
        if problem is not None:
            yield Replayed(body.task or "?", body.at, "?", "?", None, problem)
            continue
        answer = replayed(policy, entry_of(stored))
        if answer is not None:
            yield answer


def _damage(stored: StoredRow) -> str | None:
    if not is_intact(stored.row):
        return "the row is not what was written; see `taskmint audit verify`"
    return clear_damage(stored, purged=True)


def with_bar(items: Iterable[T], length: int, clock: Callable[[], float]) -> Iterator[T]:
    """Pass items on; on a terminal's stderr show how far it is, when that takes long."""
    since, terminal = clock(), sys.stderr.isatty()
    with click.progressbar(length=length, label="replaying", file=sys.stderr, hidden=True) as bar:
        for item in items:
            yield item
            bar.hidden = not terminal or clock() - since < PATIENCE_SECONDS
            bar.update(1)


def _print(answers: Iterable[Replayed], counts: Counter[str]) -> None:
    """Print answers alike once, with how many there are and the newest of them."""
    alike: dict[tuple[str, ...], list[Replayed]] = {}
    for each in answers:
        verdict = each.verdict or _UNDECIDABLE
        why = "; ".join(each.differences) or each.reason
        alike.setdefault((verdict, each.definition, each.spiffe_id, why), []).append(each)
    for (verdict, definition, spiffe_id, why), group in alike.items():
        newest = group[-1]
        times = "once" if len(group) == 1 else f"{len(group)} times"
        click.echo(f"{verdict:<13} {definition} for {spiffe_id}, {times}: {printable(why)}")
        click.echo(f"              last at {newest.at}, {newest.task}")
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    click.echo(f"{counts.total()} requests: {told or 'none is recorded'}")


def _print_json(answers: Iterable[Replayed], counts: Counter[str]) -> None:
    print_json(
        {
            "requests": counts.total(),
            "counts": dict(sorted(counts.items())),
            "answers": [
                {
                    "task": each.task,
                    "at": each.at,
                    "definition": each.definition,
                    "spiffe_id": each.spiffe_id,
                    "verdict": each.verdict or _UNDECIDABLE,
                    "reason": each.reason,
                    "differences": list(each.differences),
                }
                for each in answers
            ],
        }
    )
