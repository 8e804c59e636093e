"""Log lines: one JSON object each, and never a secret (P9)."""

import asyncio
import io
import json
import logging
import os
import pty
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from taskmint.errors import Code, Unavailable
from taskmint.model.secret import Secret
from taskmint.telemetry.fields import LONGEST_TEXT, shown
from taskmint.telemetry.logs import configure

from plugins.canaries import Canaries


@pytest.fixture(autouse=True)
def _own_configuration() -> Iterator[None]:
    """Leave structlog and logging as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def out() -> io.StringIO:
    """Return where the lines go."""
    return io.StringIO()


def only(out: io.StringIO) -> dict[str, Any]:
    """Return the one line that was written."""
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_is_an_event_with_fields(out: io.StringIO) -> None:
    """Time, level and event come first; what varies stands in fields; bound values are there."""
    configure("info", out).bind(node="n1").info("task_started", task="tm_1", seconds=0.5)

    line = only(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info", "event": "task_started", "node": "n1", "task": "tm_1", "seconds": 0.5,
    }  # fmt: skip


def test_levels_below_the_chosen_one_are_dropped(out: io.StringIO) -> None:
    """`warning` lets warnings and errors pass."""
    log = configure("warning", out)
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(log, name)("event")

    levels = [json.loads(line)["level"] for line in out.getvalue().splitlines()]
    assert levels == ["warning", "error", "critical"]
    with pytest.raises(KeyError):
        configure("loud", out)


def test_secrets_show_a_placeholder_however_deep(out: io.StringIO, canaries: Canaries) -> None:
    """A Secret given by mistake, alone or inside containers, stays hidden."""
    secret = Secret(canaries.plant("hvs.telemetry-canary-1", "a logged secret"))
    configure("info", out).info(
        "e", a=secret, b=[secret], c={"k": (secret, {secret})}, d={secret: 1}
    )

    line = only(out)
    assert (line["a"], line["b"]) == ("[secret]", ["[secret]"])
    assert line["c"] == {"k": ["[secret]", ["[secret]"]]}
    assert line["d"] == {"[secret]": 1}
    assert "canary" not in out.getvalue()


def test_objects_and_bytes_show_their_kind(out: io.StringIO) -> None:
    """What is not plain data could hold anything: its class has to do."""
    configure("info", out).info("e", a=b"raw", b=object(), c=bytearray(b"raw"), d=only)

    line = only(out)
    assert [line[key] for key in "abcd"] == ["[bytes]", "[object]", "[bytearray]", "[function]"]


def test_plain_values_are_plain(out: io.StringIO) -> None:
    """Times, spans, paths and enums read well; what JSON lacks becomes text."""
    configure("info", out).info(
        "e",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        span=timedelta(seconds=1.5),
        path=Path("/etc/x"),
        code=Code.VAULT_ERROR,
        odd=float("nan"),
        none=None,
    )

    line = only(out)
    assert line["at"] == "2026-11-21T00:00:00+00:00"
    assert (line["span"], line["path"], line["code"]) == ("1.5 s", "/etc/x", "vault_error")
    assert (line["odd"], line["none"]) == ("nan", None)


def test_long_texts_and_deep_or_large_containers_are_cut(out: io.StringIO) -> None:
    """A megabyte in a field is not a megabyte in the journal."""
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    configure("info", out).info("e", text="x" * 1_000_000, many=list(range(1_000_000)), deep=deep)

    assert len(out.getvalue()) < 2 * LONGEST_TEXT
    assert only(out)["text"].endswith("[cut]")


@given(st.text(), st.text())
def test_no_value_forges_a_line(key: str, value: str) -> None:
    """Newlines, escapes and separators of any alphabet stay inside their field."""
    out = io.StringIO()
    configure("info", out).bind(**{f"k{key}": value}).info("e")

    assert out.getvalue().isascii()
    assert only(out)[f"k{key}"] == shown(value)


def test_tracebacks_hold_places_and_no_values(out: io.StringIO, canaries: Canaries) -> None:
    """Files, lines and types; neither locals nor what a library quotes from its input."""
    token = canaries.plant("hvs.telemetry-canary-2", "a secret in an exception")

    def parse(text: str) -> None:
        raise ValueError(f"cannot parse {text!r}")

    try:
        try:
            parse(token)
        except ValueError as error:
            raise ExceptionGroup(token, [KeyError(token), error]) from error
    except ExceptionGroup:
        configure("info", out).exception("internal_error")

    text = only(out)["exception"]
    assert "test_logs.py" in text
    assert "in parse" in text
    assert "ValueError" in text
    assert "KeyError" in text
    assert "canary" not in out.getvalue()


def test_our_own_errors_and_the_systems_say_what_they_say(out: io.StringIO) -> None:
    """Texts that are safe by contract are shown, in tracebacks and as fields."""
    away = Unavailable(Code.VAULT_UNAVAILABLE, "Vault is sealed")
    log = configure("info", out)
    log.error("a", exc_info=away)
    log.error("b", error=OSError(28, "No space left on device"))

    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["exception"] == "taskmint.errors.Unavailable: Vault is sealed"
    assert second["error"] == "OSError: [Errno 28] No space left on device"


def test_endless_causes_end(out: io.StringIO) -> None:
    """A chain of exceptions that leads back to itself is written once."""
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    configure("info", out).error("e", exc_info=first)

    assert only(out)["exception"] == "KeyError\nValueError"


def test_what_libraries_log_comes_out_in_the_same_form(
    out: io.StringIO, canaries: Canaries
) -> None:
    """Warnings of libraries are events too; what they add on further lines is dropped."""
    token = canaries.plant("hvs.telemetry-canary-3", "a secret in a library's message")
    configure("info", out)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", token)
    logging.getLogger("aiohttp.access").info("GET /")

    line = only(out)
    assert line["event"] == "library_message"
    assert (line["library"], line["level"]) == ("asyncio", "error")
    assert line["message"] == "Task exception was never retrieved"


async def test_an_exception_that_nobody_awaited_is_logged_without_its_text(
    out: io.StringIO, canaries: Canaries
) -> None:
    """asyncio's own report goes the same way."""
    configure("info", out)
    token = canaries.plant("hvs.telemetry-canary-4", "a secret in a forgotten task")
    asyncio.get_running_loop().call_exception_handler(
        {"message": "Unhandled exception", "exception": ValueError(token)}
    )

    assert only(out)["exception"] == "ValueError"
    assert "canary" not in out.getvalue()


def test_a_reader_that_went_away_ends_nothing() -> None:
    """A closed pipe or stream loses the line, and the caller goes on."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    log = configure("info", stream)
    log.info("lost")
    with pytest.raises(BrokenPipeError):
        stream.close()
    log.info("lost")


def parsed(datagram: bytes) -> dict[str, str]:
    """Read a datagram of the journal's native protocol."""
    fields = {}
    while datagram:
        head, _, rest = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


def as_journal(stream: Any) -> dict[str, str]:
    """The variable by which systemd says that a stream is the journal's."""
    found = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


def test_the_journal_gets_fields_and_priorities(tmp_path: Path) -> None:
    """By its native protocol: the line as message, plain fields beside it, also with line ends."""
    path = tmp_path / "journal.sock"
    with (
        (tmp_path / "stderr").open("w+") as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
    ):
        journal.bind(str(path))
        log = configure("debug", stream, as_journal(stream), path)
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(log, name)("task_started", task="tm_1", seconds=0.5, more={"a": 1}, note="a\nb")
        log.error("event", secret=Secret("journal-canary"), exc_info=ValueError())
        got = [parsed(journal.recv(65536)) for _ in range(6)]
        stream.seek(0)
        assert stream.read() == ""

    assert [one["PRIORITY"] for one in got] == ["7", "6", "4", "3", "2", "3"]
    assert got[0]["SYSLOG_IDENTIFIER"] == "taskmint"
    assert got[0]["TASKMINT_EVENT"] == "task_started"
    assert got[0]["TASKMINT_TASK"] == "tm_1"
    assert got[0]["TASKMINT_NOTE"] == "a\nb"
    assert "TASKMINT_MORE" not in got[0]
    assert json.loads(got[0]["MESSAGE"])["more"] == {"a": 1}
    assert "canary" not in str(got)


def test_a_journal_that_is_not_reached_loses_no_line(tmp_path: Path) -> None:
    """Lines go to stderr with their priority (sd-daemon(3)); that is said once."""
    path = tmp_path / "journal.sock"
    with (tmp_path / "stderr").open("w+") as stream:
        log = configure("debug", stream, as_journal(stream), path)
        log.error("first")
        log.info("second")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.bind(str(path))
            log.info("third")
            assert parsed(journal.recv(65536))["TASKMINT_EVENT"] == "third"
        log.info("fourth")
        stream.seek(0)
        lines = stream.read().splitlines()

    said = [(line[:3], json.loads(line[3:])["event"]) for line in lines]
    unreachable = ("<4>", "journal_unreachable")
    assert said == [
        unreachable, ("<3>", "first"), ("<6>", "second"), unreachable, ("<6>", "fourth"),
    ]  # fmt: skip


def test_an_event_too_long_for_the_journal_is_a_line(tmp_path: Path) -> None:
    """A datagram has a size; nothing is lost for that."""
    path = tmp_path / "journal.sock"
    with (
        (tmp_path / "stderr").open("w+") as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
    ):
        journal.bind(str(path))
        log = configure("debug", stream, as_journal(stream), path)
        log.info(
            "long", many={str(n): "x" * LONGEST_TEXT for n in range(99)}, more=["y" * 2000] * 99
        )
        stream.seek(0)
        assert "long" in stream.read().splitlines()[-1]


def test_people_get_columns_that_cannot_move_their_cursor() -> None:
    """On a terminal the line is for eyes; control characters in values are spelt out."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        log = configure("info", terminal, {})
        log.info("task_started", purpose="\x1b[2Jgone\n", secret=Secret("x"))
        terminal.flush()
        shown_there = os.read(master, 4096).decode()
    os.close(master)

    assert "task_started" in shown_there
    assert "\\x1b[2Jgone\\n" in shown_there
    assert "[secret]" in shown_there
    assert not shown_there.startswith("{")


def test_without_a_stream_it_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to commands."""
    configure().info("here")
    captured = capsys.readouterr()

    assert (captured.out, json.loads(captured.err)["event"]) == ("", "here")
