"""
Every skip is printed with its reason; with --only-allowed-skips an unlisted one fails the run.

tests/allowed_skips.txt holds one pattern per line, `node id glob | why that is right`.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

_LIST = Path(__file__).parent.parent / "allowed_skips.txt"


def read_allowed(text: str) -> dict[str, str]:
    """Return pattern -> reason; raises ValueError for a line without a reason."""
    allowed: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        pattern, bar, reason = (part.strip() for part in line.partition(" | "))
        if not bar or not pattern or not reason:
            raise ValueError(f"an allowed skip needs `pattern | reason`: {line!r}")
        allowed[pattern] = reason
    return allowed


class Skips:
    """Collects skips as they are reported and judges them at the end."""

    def __init__(self, allowed: dict[str, str], *, enforce: bool) -> None:
        self._allowed = allowed
        self._enforce = enforce
        self._seen: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a skipped test; an expected failure is no skip."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that was skipped as a whole."""
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._seen[report.nodeid] = reason

    def _unlisted(self) -> Iterator[str]:
        for node in self._seen:
            if not any(fnmatchcase(node, pattern) for pattern in self._allowed):
                yield node

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that would otherwise pass."""
        if self._enforce and any(self._unlisted()) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print each skip; those that are not allowed are named again."""
        if self._seen:
            terminalreporter.section("skips")
        for node, reason in sorted(self._seen.items()):
            terminalreporter.write_line(f"{node}: {reason}")
        for node in sorted(self._unlisted()):
            terminalreporter.write_line(f"not in tests/allowed_skips.txt: {node}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that `make test` uses."""
    parser.addoption(
        "--only-allowed-skips",
        action="store_true",
        help="fail when a test is skipped that tests/allowed_skips.txt does not list",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register one collector for this run."""
    allowed = read_allowed(_LIST.read_text(encoding="utf-8"))
    enforce = bool(config.getoption("--only-allowed-skips"))
    config.pluginmanager.register(Skips(allowed, enforce=enforce), "taskmint-skips")
