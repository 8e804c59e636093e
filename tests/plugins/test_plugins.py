"""The rules every test lives under, tried on small suites of their own in a sub-process."""

import base64
import json
import subprocess
import sys
import textwrap
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from source_tree import REPOSITORY

from plugins.canaries import Canaries, disguises
from plugins.skips import read_allowed

VALUE = "a+secret/value=öß"


def suite(directory: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a suite of one file under the plugins, with our configuration."""
    (directory / "test_small.py").write_text(textwrap.dedent(code))
    plugins = [f"-pplugins.{name}" for name in ("blocking", "canaries", "skips")]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(REPOSITORY / "pyproject.toml")]
    return subprocess.run(
        [*command, *plugins, "--rootdir", directory, "--basetemp", directory / "base",
         "-p", "no:cacheprovider", *arguments, directory / "test_small.py"],
        capture_output=True, text=True, check=False, cwd=REPOSITORY / "tests", timeout=50,
        env={"PYTHONPATH": str(REPOSITORY / "tests"), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "leak", ["value", "value.encode().hex()", "base64.b64encode(b'x' + value.encode()).decode()"]
)
def test_a_secret_in_a_file_fails_the_run(tmp_path: Path, leak: str) -> None:
    """The tests pass, the run does not: the file and the label are named, the value is not."""
    result = suite(
        tmp_path,
        f"""
        import base64
        def test_leaks(tmp_path, canaries):
            value = canaries.plant("correct-horse-battery", "the password")
            (tmp_path / "daemon.log").write_text("x" + {leak} + "y")
        """,
    )

    assert result.returncode == 1
    assert "secret leaked: the password" in result.stdout
    assert "daemon.log" in result.stdout
    assert "correct-horse-battery" not in result.stdout


def test_a_secret_that_was_printed_fails_the_run(tmp_path: Path) -> None:
    """What a test prints is searched too; an allowed file and a clean one are not findings."""
    result = suite(
        tmp_path,
        """
        def test_prints(tmp_path, canaries):
            value = canaries.plant("correct-horse-battery", "the password")
            (tmp_path / "credential").write_text(value)
            canaries.allow(tmp_path / "credential")
            (tmp_path / "clean").write_text("nothing")
            print(value)
        """,
    )

    assert result.returncode == 1
    assert result.stdout.count("secret leaked") == 1
    assert "Captured stdout" in result.stdout


def test_a_suite_without_leaks_passes(tmp_path: Path) -> None:
    """Nothing is found where nothing is."""
    result = suite(
        tmp_path,
        """
        def test_is_clean(tmp_path, canaries):
            canaries.plant("correct-horse-battery", "the password")
            (tmp_path / "log").write_text("correct-horse")
        """,
    )

    assert result.returncode == 0, result.stdout


def test_an_unlisted_skip_fails_the_run_that_asks_for_it(tmp_path: Path) -> None:
    """With the switch of `make test` it fails and is named; without, it is printed."""
    code = """
        import pytest
        @pytest.mark.skip(reason="the moon is full")
        def test_skipped(): ...
        def test_passes(): ...
    """
    strict = suite(tmp_path, code, "--only-allowed-skips")
    loose = suite(tmp_path, code)

    assert strict.returncode == 1
    assert "not in tests/allowed_skips.txt: test_small.py::test_skipped" in strict.stdout
    assert loose.returncode == 0
    assert "the moon is full" in loose.stdout


def test_a_blocking_call_of_ours_on_the_loop_fails_its_test(tmp_path: Path) -> None:
    """taskmint may not open a file on the loop, a test may; elsewhere taskmint may too."""
    result = suite(
        tmp_path,
        """
        import os
        from pathlib import Path
        from taskmint.cli.run_delivery import Delivery, DeliveryError, File
        import pytest
        def write(path):
            with pytest.raises(DeliveryError):
                Delivery([], [File(str(path), "e", None, "text")]).write({})
        async def test_blocks():
            write("/nowhere/x")
        async def test_may_block():
            os.close(os.open(__file__, os.O_RDONLY))
        def test_is_not_on_a_loop():
            write("/nowhere/x")
        """,
    )

    assert result.returncode == 1
    assert "BlockingError" in result.stdout
    assert "1 failed, 2 passed" in result.stdout


@given(st.text("abcdefghij+/=öß", min_size=12, max_size=40), st.text(max_size=5))
def test_every_disguise_is_seen_through(value: str, before: str) -> None:
    """Clear, hex, URL-quoted, JSON-escaped and base64 at any alignment, among other text."""
    canaries = Canaries()
    canaries.plant(value, "it")
    raw = (before + value + "tail").encode()
    hidden = [
        raw,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        urllib.parse.quote(before + value, safe="").encode(),
        json.dumps({"k": before + value}).encode(),
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw),
    ]
    for data in hidden:
        canaries.findings.clear()
        canaries.search_bytes(data, "here")
        assert canaries.findings, data


def test_a_canary_is_long_enough_not_to_be_found_by_chance() -> None:
    """A short one is refused, and the forms do not repeat the value's neighbours."""
    with pytest.raises(ValueError, match="at least"):
        Canaries().plant("short", "it")
    assert len(disguises(VALUE)) >= 8


def test_an_allowed_skip_has_a_reason() -> None:
    """A line without one is no permission."""
    assert read_allowed("# why\n\ntests/a.py::* | no systemd here\n") == {
        "tests/a.py::*": "no systemd here"
    }
    with pytest.raises(ValueError, match="pattern"):
        read_allowed("tests/a.py::*\n")
