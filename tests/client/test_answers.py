"""What the client makes of answers: values, refusals, and things that are not taskmint's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.client import calls
from taskmint.client.answers import Ended, Started, Waiting, ended, started, waiting
from taskmint.client.errors import BadAnswer, Refused
from taskmint.client.http1 import Answer

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from([*Started._fields, *Ended._fields, "end_cause", "heartbeat_seconds"])


def answer(body: bytes, kind: str = "application/json", **headers: str) -> Answer:
    """An answer as it comes from the daemon."""
    made = Answer()
    made.feed(
        b"HTTP/1.1 400 Bad\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    made.headers.update(headers, **{"content-type": kind})
    return made


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"null", b"\xff"])
def test_what_is_no_json_object_is_not_ours(body: bytes) -> None:
    """A proxy's page, nothing, something else."""
    with pytest.raises(BadAnswer):
        calls.read(answer(body))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("soon", None), ("-1", None), ("\xb2", None), ("9" * 400, None)],
)
def test_a_problem_is_a_refusal(header: str, seconds: float | None) -> None:
    """With its code, and a time only when it is one."""
    body = json.dumps({"code": "limit_exceeded", "detail": "d", "fix": "f"}).encode()
    with pytest.raises(Refused) as raised:
        calls.read(answer(body, "application/problem+json", **{"retry-after": header}))

    assert (raised.value.code, raised.value.retry_after) == ("limit_exceeded", seconds)


@given(st.dictionaries(NAMES, ANYTHING))
def test_other_shapes_are_refused(body: dict[str, object]) -> None:
    """Whatever an answer holds, it is a task or a BadAnswer."""
    for read in (started, ended):
        try:
            read(body)
        except BadAnswer:
            continue


@given(
    st.fixed_dictionaries(
        {"state": st.just("awaiting_approval"), "id": ANYTHING},
        optional={
            "approval": ANYTHING | st.dictionaries(st.sampled_from(Waiting._fields), ANYTHING)
        },
    )
)
def test_what_waits_in_another_shape_is_refused(body: dict[str, object]) -> None:
    """It is a request or a BadAnswer; what does not wait is none of it."""
    with pytest.raises(BadAnswer):
        waiting(body)
    assert waiting({**body, "state": "approved"}) is None


def test_a_request_until_a_time_of_no_zone_is_refused() -> None:
    """Nobody could say how long that is."""
    approval = {"approvers": ["user:a"], "quorum": 1, "given": 0, "plan": {}}
    body = {"id": "tm_x", "state": "awaiting_approval", "approval": approval}
    approval["until"] = "2026-01-01T00:00:00Z"
    assert waiting(body) is not None
    approval["until"] = "2026-01-01T00:00:00"
    with pytest.raises(BadAnswer):
        waiting(body)


def test_a_number_beyond_all_numbers_is_refused() -> None:
    """JSON has integers that no float holds."""
    with pytest.raises(BadAnswer):
        ended({"state": "revoked", "end_cause": None, "revocation_seconds": 10**400})
