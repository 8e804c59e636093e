"""
Secrets of the suite, hunted for where no secret may be (P9): logs, ledger, captured output.

A test or fixture plants each secret that comes into its hands. When the session ends, every file
under pytest's base directory and everything that tests printed is searched for each of them, also
in base64, hex, URL and JSON form. Directories that disappear earlier are searched by `search`.
Findings name the place and the label of the secret, never its value.

Thousands of forms in hundreds of megabytes are not looked for one by one. Every form has a core,
its longest run of the letters that secrets are made of; what was written is taken apart into such
runs, each is looked at once, and only a form whose core turned up is searched for in full.
"""

import base64
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pytest

_SHORTEST = 12  # a shorter value would be found by chance
_RUN = re.compile(rb"[A-Za-z0-9+/=_.%%~\\-]{%d,}" % _SHORTEST)
_LARGEST_FILE = 64 * 1024 * 1024


def disguises(value: str) -> dict[bytes, str]:
    """Return every form in which the value is looked for -> the name of the form."""
    raw = value.encode()
    forms = {
        urllib.parse.quote(value, safe="").encode(): "URL-quoted",
        json.dumps(value)[1:-1].encode(): "JSON-escaped",
        raw.hex().encode(): "hex",
        raw.hex().upper().encode(): "hex",
    }
    for shift in range(3):
        # The first and last characters depend on the neighbours: cut what is not ours alone.
        start, end = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms[encode(b"\0" * shift + raw)[start:end]] = "base64"
    forms[raw] = "clear"
    return forms


class Canaries:
    """The planted secrets and where they were found."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}
        # By the first letters of its core: the core and the form; forms without a core apart.
        self._cores: defaultdict[bytes, list[tuple[bytes, bytes]]] = defaultdict(list)
        self._coreless: set[bytes] = set()
        self._allowed: list[Path] = []
        self.findings: set[str] = set()

    def plant(self, value: str, label: str) -> str:
        """Hunt for this value from now on; returns it. Raises ValueError when it is too short."""
        if len(value) < _SHORTEST:
            raise ValueError(f"a canary has at least {_SHORTEST} characters")
        for form, name in disguises(value).items():
            if form not in self._needles:
                self._index(form)
            self._needles[form] = f"{label} ({name})"
        return value

    def _index(self, form: bytes) -> None:
        core = max(_RUN.findall(form), key=len, default=b"")
        if core:
            self._cores[core[:_SHORTEST]].append((core, form))
        else:
            self._coreless.add(form)

    def allow(self, path: Path) -> None:
        """Leave out a file or directory whose purpose is to hold a secret."""
        self._allowed.append(path)

    def search(self, place: Path) -> None:
        """Search a file or everything under a directory, now."""
        paths = [place] if place.is_file() else sorted(place.rglob("*"))
        self.search_each([(str(path), path.read_bytes) for path in paths if self._searched(path)])

    def search_bytes(self, data: bytes, where: str) -> None:
        """Search what has no file; `where` names it in a finding."""
        self.search_each([(where, lambda: data)])

    def search_each(self, sources: Sequence[tuple[str, Callable[[], bytes]]]) -> None:
        """Search places, each with its name and how to read it."""
        runs = {run for _, read in sources for run in _RUN.findall(read())}
        suspects = self._coreless | self._suspects(runs)
        if not suspects:
            return
        for where, read in sources:
            data = read()
            for form in suspects:
                if form in data:
                    self.findings.add(f"{self._needles[form]} in {where}")

    def _suspects(self, runs: Iterable[bytes]) -> set[bytes]:
        """Return the forms whose core stands in one of the runs."""
        cores, found = self._cores, set[bytes]()
        for run in runs:
            for start in range(len(run) - _SHORTEST + 1):
                for core, form in cores.get(run[start : start + _SHORTEST], ()):
                    if run.startswith(core, start):
                        found.add(form)
        return found

    def _searched(self, path: Path) -> bool:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return False
        return not any(path.is_relative_to(allowed) for allowed in self._allowed)


class _Hunt:
    def __init__(self, canaries: Canaries) -> None:
        self.canaries = canaries
        self._printed: list[tuple[str, bytes]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test printed and logged; a failure's own text is shown to developers only."""
        for title, text in report.sections:
            self._printed.append((f"{report.nodeid}, {title}", text.encode()))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Search everything that is left; a finding fails the run."""
        self.canaries.search_each([(where, partial(bytes, text)) for where, text in self._printed])
        base = _base_directory(session.config)
        if base is not None:
            self.canaries.search(base)
        if self.canaries.findings and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the findings."""
        for finding in sorted(self.canaries.findings):
            terminalreporter.write_line(f"secret leaked: {finding}", red=True)


def _base_directory(config: pytest.Config) -> Path | None:
    """Return pytest's temporary directory when a test used it."""
    base = config.stash.get(_BASE, None)
    return base if base is not None and base.is_dir() else None


_BASE = pytest.StashKey[Path]()
_CANARIES = pytest.StashKey[Canaries]()


def pytest_configure(config: pytest.Config) -> None:
    """Register one hunt for this run."""
    config.stash[_CANARIES] = Canaries()
    config.pluginmanager.register(_Hunt(config.stash[_CANARIES]), "taskmint-canaries")


@pytest.fixture(scope="session")
def canaries(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Canaries:
    """The suite's secrets: plant each one that a test receives."""
    pytestconfig.stash[_BASE] = tmp_path_factory.getbasetemp()
    return pytestconfig.stash[_CANARIES]
