"""What operators watch, on a running daemon: metrics, alerts, and the page that lists them."""

import asyncio
import json
import math
import os
import re
import signal

import aiohttp
import pytest

from scrape import Sample, ask, fires, grouped_by, read, selectors
from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import DAEMON_ID
from telemetry.test_alerts import (
    DASHBOARD,
    PROMETHEUS_MAKES,
    RULES,
    RUNBOOK,
    dashboard_expressions,
    rule,
)

from e2e.ground import Workload, admin

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]

EXTRA = """
version: 1
tasks:
  extra-report:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [spiffe://example.org/ns/orders/sa/report]
    deadline: {default: 5m, max: 30m}
    ends: {deadline_only: true}
    scope:
      warehouse: {secret: {mount: database, path: creds/orders-ro-eu, proof: login}}
"""
PROMETHEUS_OWN = {"instance", "job", "le"}


async def page(stack: Stack) -> str:
    """Scrape the admin socket."""
    connector = aiohttp.UnixConnector(str(stack.paths.admin_socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://taskmint/metrics", headers={"X-Taskmint-Request": "true"}) as reply,
    ):
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await reply.text()


async def busy_page(stack: Stack, workload: Workload) -> str:
    """Scrape after a task was started, refused, and ended, and while one is live."""
    await workload.end(await workload.start())
    await workload.ask("POST", "/v1/tasks", json={"task": "no-such"})
    live = await workload.start("e2e-beating")
    text = await page(stack)
    await workload.end(live)
    return text


def labels_of(samples: list[Sample], name: str) -> set[str]:
    """The label names of a metric."""
    found = [sample.labels.keys() for sample in samples if sample.name == name]
    assert found, name
    return set(found[0])


async def test_every_metric_of_alerts_and_dashboard_is_scraped_with_the_labels_used(
    stack: Stack, workload: Workload
) -> None:
    """Names, labels that are matched or grouped by, and the very values that are matched."""
    samples = read(await busy_page(stack, workload))
    for expression in [*(one["expr"] for one in RULES), *dashboard_expressions()]:
        for selector in selectors(expression):
            if selector.name in PROMETHEUS_MAKES:
                continue
            known = labels_of(samples, selector.name)
            for matcher in selector.matchers.matchers:
                assert matcher.name in known | PROMETHEUS_OWN, (expression, matcher.name)
                if str(matcher.op) == "MatchOp.Equal":
                    assert any(
                        sample.labels.get(matcher.name) == matcher.value
                        for sample in samples
                        if sample.name == selector.name
                    ), (expression, matcher.value)
        for name, labels in grouped_by(expression):
            assert set(labels) <= labels_of(samples, name) | PROMETHEUS_OWN, expression
    shown = set(re.findall(r"{{ ?\$?(?:labels\.)?(\w+) ?}}", DASHBOARD))
    assert shown <= {label for sample in samples for label in sample.labels} | PROMETHEUS_OWN


async def test_the_runbook_lists_every_metric_with_its_labels(
    stack: Stack, workload: Workload
) -> None:
    """No more and no fewer than a scrape has."""
    text = await busy_page(stack, workload)
    samples = read(text)
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    present = {sample.name for sample in samples}
    series = {
        name: f"{name}_count" if kind == "histogram" else name for name, kind in kinds.items()
    }
    scraped = {name: labels_of(samples, of) for name, of in series.items() if of in present}
    table = re.findall(r"^\| `(taskmint_\w+)` \|([^|]*)\|", RUNBOOK, re.MULTILINE)

    listed = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in table}

    assert listed.keys() == kinds.keys()
    assert {name: listed[name] for name in scraped} == scraped


async def test_a_page_holds_no_identity_no_id_and_no_secret(
    stack: Stack, workload: Workload
) -> None:
    """P9: whoever may scrape learns counts; every value is a number."""
    text = await busy_page(stack, workload)

    assert "spiffe://" not in text
    assert "tm_" not in text
    assert "hvs." not in text
    assert all(not math.isnan(sample.value) for sample in read(text))


async def test_a_healthy_daemon_raises_no_alarm(stack: Stack, workload: Workload) -> None:
    """Every rule that two scrapes can answer says nothing."""
    before, after = read(await busy_page(stack, workload)), read(await busy_page(stack, workload))
    answered = []
    for one in RULES:
        try:
            result = ask(one["expr"], before, after)
        except NotImplementedError:
            continue
        answered.append(one["alert"])
        assert not fires(result), (one["alert"], result)
    assert len(answered) >= 12


async def test_a_sealed_vault_raises_its_alarm_and_the_unsealed_one_clears_it(
    stack: Stack, workload: Workload
) -> None:
    """The component, the mount and the unproven revocation show; all of them go again."""
    task = await workload.start()
    before = read(await page(stack))
    await stack.bao.seal()
    try:
        await workload.end(task)
        during = read(await page(stack))
    finally:
        await stack.bao.unseal()
    await workload.ask("GET", f"/v1/tasks/{task['id']}?wait=50s")
    after = read(await page(stack))

    unproven = "taskmint_revocations_unproven > 0"
    at = 'taskmint_revocations_unproven_at_mount{mount="database"} > 0'
    failed = 'increase(taskmint_vault_request_seconds_count{answered="failed"}[5m]) > 0'
    for expression in (unproven, at, failed):
        assert fires(ask(expression, before, during)), expression
    for expression in (unproven, at, rule("TaskmintRevocationUnproven")):
        assert not fires(ask(expression, during, after)), expression


async def doctor(stack: Stack) -> tuple[int, list[dict[str, str]]]:
    """What doctor finds wrong, and its exit code; run as the daemon's own interpreter."""
    process = await asyncio.create_subprocess_exec(
        *(str(stack.python["daemon"]), "-m", "taskmint", "doctor", "--output", "json"),
        env={"PATH": os.environ["PATH"], **stack.environment()},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    found = [one for one in json.loads(out) if one["severity"] == "error"]
    return process.returncode or 0, found


async def test_an_alert_is_resolved_by_what_doctor_says(
    stack: Stack, daemon: Daemon, workload: Workload
) -> None:
    """
    A policy with a mistake and a definition that Vault knows nothing of, as an SRE would meet them.

    1. The reload is refused: TaskmintPolicyRefused fires, doctor names the line and the word.
    2. Corrected as it says: the alert is gone, and TaskmintPlanNotApplied fires; doctor names the
       definition and `taskmint vault apply`.
    3. Applied: nothing fires and doctor has nothing to mend.
    """
    policy = stack.paths.policy / "extra.yaml"
    try:
        # 1.
        policy.write_text(EXTRA.replace("owner:", "ovner:", 1))
        policy.chmod(0o644)
        daemon.signal(signal.SIGHUP)
        await until_fires(stack, "TaskmintPolicyRefused", fires_now=True)
        code, found = await doctor(stack)
        assert code == 1
        assert any("extra.yaml:" in one["what"] and "ovner" in one["what"] for one in found)
        assert any("owner" in one["fix"] for one in found)
        # 2.
        policy.write_text(EXTRA)
        assert (await admin(stack, "reload"))[0] == 0
        await until_fires(stack, "TaskmintPolicyRefused", fires_now=False)
        await until_fires(stack, "TaskmintPlanNotApplied", fires_now=True)
        code, found = await doctor(stack)
        assert code == 1
        (lacking,) = [one for one in found if "extra-report" in one["what"]]
        assert "taskmint vault apply" in lacking["fix"]
        # 3.
        await stack.apply()
        await until_fires(stack, "TaskmintPlanNotApplied", fires_now=False)
        assert await doctor(stack) == (0, [])
        await workload.end(await workload.start("extra-report"))
    finally:
        policy.unlink()
        await admin(stack, "reload")
        apply = ("vault", "apply", "--yes", "--prune", "--daemon-spiffe-id", DAEMON_ID)
        done = await admin(stack, *apply, "--token-file", str(stack.paths.root_token))
        assert done[0] == 0, done[1]


async def until_fires(stack: Stack, name: str, *, fires_now: bool) -> None:
    """Scrape until a rule says so."""
    async with asyncio.timeout(40):
        while True:
            now = read(await page(stack))
            if fires(ask(rule(name), now, now)) == fires_now:
                return
            await asyncio.sleep(0.1)
