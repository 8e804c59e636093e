"""The alert rules and the dashboard: they parse, and each alert has its page in the runbook."""

import json
import re
from typing import Any

import pytest
import yaml

from scrape import ask as evaluate
from scrape import fires, read, selectors
from source_tree import REPOSITORY

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load(
        (REPOSITORY / "config" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8")
    )["groups"]
    for rule in group["rules"]
]
DASHBOARD = (REPOSITORY / "config" / "grafana" / "taskmint.json").read_text(encoding="utf-8")
RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
# What Prometheus itself says of each target.
PROMETHEUS_MAKES = {"up"}
# What Grafana fills in.
FILLED = {"$__rate_interval": "5m", "$instance": ".*"}


def dashboard_expressions() -> list[str]:
    """Every query of the dashboard, as Prometheus would get it."""
    found = [
        target["expr"] for panel in json.loads(DASHBOARD)["panels"] for target in panel["targets"]
    ]
    for variable, value in FILLED.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


def rule(name: str) -> str:
    """The expression of an alert."""
    return next(str(one["expr"]) for one in RULES if one["alert"] == name)


@pytest.mark.parametrize("one", RULES, ids=lambda one: str(one["alert"]))
def test_a_rule_is_whole(one: dict[str, Any]) -> None:
    """It parses, names metrics of ours, says how bad it is, and leads to its page."""
    named = {selector.name for selector in selectors(one["expr"])}
    assert {name[:9] for name in named - PROMETHEUS_MAKES} <= {"taskmint_"}
    assert named
    assert one["labels"]["severity"] in {"page", "ticket"}
    assert one["annotations"]["summary"]
    assert one["annotations"]["runbook"] == f"docs/runbook.md#{one['alert'].lower()}"


def test_every_alert_has_an_entry_in_the_runbook_and_none_is_stale() -> None:
    """The headings are the alerts, in the order of the rules."""
    headings = re.findall(r"^## (Taskmint\w+)$", RUNBOOK, re.MULTILINE)

    assert headings == [one["alert"] for one in RULES]


def test_the_dashboard_parses() -> None:
    """Every query; ids and places are each panel's own."""
    panels = json.loads(DASHBOARD)["panels"]

    for expression in dashboard_expressions():
        assert list(selectors(expression))
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("TaskmintAbsent", "", ""),
        (
            "TaskmintDown",
            'up{job="taskmint",instance="a"} 1\nup{job="taskmint",instance="b"} 1',
            'up{job="taskmint",instance="a"} 1\nup{job="taskmint",instance="b"} 0',
        ),
        ("TaskmintComponentNotReady", "", 'taskmint_component_ready{component="vault"} 0'),
        ("TaskmintRevocationUnproven", "", "taskmint_revocations_unproven_oldest_seconds 121"),
        (
            "TaskmintMintingStopped",
            'taskmint_limits_hit_total{limit="unproven_revocations"} 1',
            'taskmint_limits_hit_total{limit="unproven_revocations"} 2',
        ),
        (
            "TaskmintRenewalsFailing",
            'taskmint_renewals_total{outcome="lost"} 0',
            'taskmint_renewals_total{outcome="lost"} 1',
        ),
        ("TaskmintVaultRightsTooWide", "", "taskmint_vault_rights_wider 1"),
        ("TaskmintPlanNotApplied", "", "taskmint_vault_definitions_unapplied 1"),
        ("TaskmintWorkloadApiAway", "", "taskmint_workload_api_bundle_age_seconds +Inf"),
        ("TaskmintLedgerDiskFilling", "", "taskmint_ledger_disk_free_bytes 4096"),
        (
            "TaskmintLimitHit",
            'taskmint_limits_hit_total{limit="tasks"} 0',
            'taskmint_limits_hit_total{limit="tasks"} 11',
        ),
        (
            "TaskmintLimitHit",
            'taskmint_connections_refused_total{socket="task"} 0',
            'taskmint_connections_refused_total{socket="task"} 11',
        ),
        (
            "TaskmintDescriptorsRunningOut",
            "",
            "taskmint_open_descriptors 900\ntaskmint_descriptors_limit 1024",
        ),
        ("TaskmintPolicyRefused", "", "taskmint_policy_reload_failed 1"),
        (
            "TaskmintInternalError",
            'taskmint_refusals_total{code="internal_error"} 0',
            'taskmint_refusals_total{code="internal_error"} 1',
        ),
    ],
)
def test_an_alert_fires_when_it_should(name: str, before: str, after: str) -> None:
    """And not on the page of before."""
    then, now = read(before), read(after)

    assert fires(evaluate(rule(name), then, now))
    assert name == "TaskmintAbsent" or not fires(evaluate(rule(name), then, then))
