"""Metrics: the text format, closed labels, bounded series."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.errors import Code, Limit
from taskmint.model.scope import Ends, Scope
from taskmint.model.state import EndCause
from taskmint.ports import Answered, Observer, RenewalOutcome, VaultCall
from taskmint.telemetry.exposition import MOST_SERIES, OTHER, Counter, Histogram, Read, render
from taskmint.telemetry.metrics import Metrics

SCOPE = Scope(
    definition="orders-report",
    policy_digest="",
    token_role="",
    token_policy="",
    entitlements=(),
    dead_man=timedelta(seconds=60),
    lifetime=timedelta(minutes=5),
    ends=Ends(),
)
# https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format, as one grammar.
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)"
    rf"(?:\{{(?P<labels>{LABEL}(?:,{LABEL})*)\}})? "
    r"(?P<value>[+-]?(?:\d+(?:\.\d+)?(?:e[+-]\d+)?|Inf)|NaN)"
)


def samples(text: str) -> dict[str, float]:
    """Read the text format strictly; return `name{labels}` -> value."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed
            assert kind in {"counter", "gauge", "histogram"}
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            family = re.sub(r"_(bucket|sum|count)$", "", match["name"])
            assert family in typed or match["name"] in typed
            key = match["name"] + (f"{{{match['labels']}}}" if match["labels"] else "")
            assert key not in found
            found[key] = float(match["value"])
    return found


def report(observer: Observer) -> None:
    """Report one of everything, as tasks do."""
    observer.started(SCOPE, 0.03)
    observer.started(SCOPE, 400)
    observer.refused(Code.NOT_PERMITTED)
    observer.ended("orders-report", EndCause.HEARTBEAT_MISSED)
    observer.revoked("orders-report", 0.02)
    observer.renewal(RenewalOutcome.OK)
    observer.renewal(RenewalOutcome.FAILED)
    observer.renewal(RenewalOutcome.LOST)
    observer.limited(Limit.TASKS)
    observer.vault_called("database", VaultCall.MINT, Answered.OK, 0.02)
    observer.recorded(0.0003)


def test_metrics_are_an_observer() -> None:
    """What tasks report is counted under the names that docs promise."""
    metrics = Metrics()
    report(metrics)
    metrics.show(Read("taskmint_live_tasks", "Tasks that have not ended.", lambda: 7))
    found = samples(metrics.text())

    start = 'taskmint_task_start_seconds_bucket{definition="orders-report",le="%s"}'
    assert found[start % "0.02"] == 0
    assert found[start % "0.05"] == 1
    assert found[start % "300"] == 1
    assert found[start % "+Inf"] == 2
    assert found['taskmint_task_start_seconds_sum{definition="orders-report"}'] == 400.03
    assert found['taskmint_task_start_seconds_count{definition="orders-report"}'] == 2
    assert found['taskmint_refusals_total{code="not_permitted"}'] == 1
    ended = 'taskmint_tasks_ended_total{definition="orders-report",cause="heartbeat_missed"}'
    assert found[ended] == 1
    assert found['taskmint_revocation_seconds_count{definition="orders-report"}'] == 1
    assert found['taskmint_renewals_total{outcome="ok"}'] == 1
    assert found['taskmint_renewals_total{outcome="failed"}'] == 1
    assert found['taskmint_renewals_total{outcome="lost"}'] == 1
    assert found['taskmint_limits_hit_total{limit="tasks"}'] == 1
    assert found['taskmint_limits_hit_total{limit="descriptors"}'] == 0
    minted = 'taskmint_vault_request_seconds_count{mount="database",call="mint",answered="ok"}'
    assert found[minted] == 1
    assert found["taskmint_ledger_append_seconds_count"] == 1
    assert found["taskmint_live_tasks"] == 7


def test_every_name_is_ours_and_says_its_unit() -> None:
    """Names start with taskmint_; counters end in _total, times in _seconds."""
    metrics = Metrics()
    kinds = dict(
        line.split(" ")[2:] for line in metrics.text().splitlines() if line.startswith("# TYPE")
    )

    assert kinds
    for name, kind in kinds.items():
        assert name.startswith("taskmint_")
        assert name.endswith({"counter": "_total", "histogram": "_seconds"}[kind])


def test_a_code_that_is_none_of_ours_is_counted_as_other() -> None:
    """Label sets are closed: whatever else comes is one series."""
    metrics = Metrics()
    for code in ("junk", "tm_01", "spiffe://x"):
        metrics.refused(code)
    found = samples(metrics.text())

    assert found[f'taskmint_refusals_total{{code="{OTHER}"}}'] == 3


def test_series_are_bounded() -> None:
    """P10: more definitions than fit are counted together, and nothing is lost."""
    metrics = Metrics()
    for number in range(MOST_SERIES + 50):
        metrics.started(replace(SCOPE, definition=f"d{number}"), 1)
        metrics.ended(f"d{number}", EndCause.DEADLINE)
    found = samples(metrics.text())

    assert found[f'taskmint_task_start_seconds_count{{definition="{OTHER}"}}'] == 50
    assert found[f'taskmint_tasks_ended_total{{definition="{OTHER}",cause="{OTHER}"}}'] == 50
    assert found['taskmint_task_start_seconds_count{definition="d0"}'] == 1


def test_gauges_are_read_when_the_page_is() -> None:
    """A gauge is the truth at the scrape, not when it was registered."""
    ages = [3.5]
    gauge = Read("taskmint_oldest_unproven_revocation_seconds", "Age.", lambda: ages[0])

    assert samples(render([gauge])) == {"taskmint_oldest_unproven_revocation_seconds": 3.5}
    ages[0] = float("inf")
    assert samples(render([gauge])) == {"taskmint_oldest_unproven_revocation_seconds": float("inf")}


def test_readings_by_label_are_bounded() -> None:
    """P10: what is read at the scrape is cut as well, and the rest counted together."""
    many: dict[tuple[str, ...], float] = {
        (f"m{number:04}",): 1.0 for number in range(MOST_SERIES + 7)
    }
    found = samples(render([Read("taskmint_many", "Many.", lambda: many, ("mount",))]))

    assert len(found) == MOST_SERIES + 1
    assert found[f'taskmint_many{{mount="{OTHER}"}}'] == 7


@given(st.text(), st.floats())
def test_any_label_and_any_number_keep_the_format(label: str, number: float) -> None:
    """Quotes, backslashes and newlines are escaped; NaN and infinities have their spelling."""
    counter = Counter("taskmint_a_total", "Odd\nhelp \\ text.", ("x",))
    counter.add((label,))
    gauge = Read("taskmint_b", "B.", lambda: number)
    histogram = Histogram("taskmint_c_seconds", "C.", (1, 2), ("x",))
    histogram.observe(1, (label,))
    text = render([counter, gauge, histogram])

    assert len(samples(text)) == 7
    assert samples(text)["taskmint_b"] == pytest.approx(number, rel=0, abs=0, nan_ok=True)
