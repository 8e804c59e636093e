"""What Vault's answers mean: every status, every body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskmint.errors import BackendFailed, Code, Unavailable
from taskmint.model.scope import Json
from taskmint.vault.responses import (
    CREATED_NOTHING,
    NO_SUCH_LEASE,
    NO_SUCH_TOKEN,
    Meaning,
    Reply,
    failure,
    says_gone,
)

WRAP = "1 error occurred:\n\t* {}\n\n"
JSON: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def reply(status: int, *errors: str, **headers: str) -> Reply:
    """An answer with Vault's errors."""
    return Reply(status, headers, {"errors": list(errors)})


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (Reply(200, {}, {"data": {}}), Meaning.DONE),
        (Reply(200, {}, None), Meaning.STRANGE),
        (Reply(204, {}, None), Meaning.DONE),
        (Reply(202, {}, None), Meaning.QUEUED),
        (Reply(201, {}, {}), Meaning.STRANGE),
        (Reply(307, {}, None), Meaning.MOVED),
        (Reply(301, {}, None), Meaning.MOVED),
        (Reply(304, {}, None), Meaning.STRANGE),
        (reply(400, "unsupported"), Meaning.REFUSED),
        (Reply(400, {}, None), Meaning.STRANGE),
        (reply(403, "permission denied"), Meaning.DENIED),
        (reply(403, WRAP.format("permission denied")), Meaning.DENIED),
        (reply(403, "permission denied", "invalid token"), Meaning.DENIED),
        (reply(403, "bad token"), Meaning.REFUSED),
        (Reply(403, {}, None), Meaning.STRANGE),
        (reply(404), Meaning.ABSENT),
        (reply(405, "unsupported operation"), Meaning.ABSENT),
        (reply(412, "required index state not present"), Meaning.BEHIND),
        (reply(429, "rate limit quota exceeded"), Meaning.BUSY),
        (reply(472), Meaning.STANDBY),
        (reply(473), Meaning.STANDBY),
        (reply(500, "internal error"), Meaning.FAILED),
        (
            reply(500, "local node not active but active cluster node not found"),
            Meaning.STANDBY,
        ),
        (reply(502, "third party"), Meaning.FAILED),
        (reply(503, "Vault is sealed"), Meaning.SEALED),
        (reply(503, "upstream connect error"), Meaning.FAILED),
        (Reply(503, {}, None), Meaning.STRANGE),
        (reply(504, "timeout"), Meaning.FAILED),
        (reply(418), Meaning.STRANGE),
        (Reply(500, {}, {"errors": "no list"}), Meaning.STRANGE),
    ],
)
def test_meanings(answer: Reply, meaning: Meaning) -> None:
    """The table, one row each."""
    assert answer.meaning is meaning


@pytest.mark.parametrize("words", [NO_SUCH_LEASE, NO_SUCH_TOKEN])
def test_gone_is_said_in_exactly_these_words(words: str) -> None:
    """With and without the wrapping of a single error; nothing around it, no other status."""
    assert says_gone(reply(400, words), words)
    assert says_gone(reply(400, WRAP.format(words)), words)
    for answer in (
        reply(400, f"{words} "),
        reply(400, f"not an {words}"),
        reply(400, words, words),
        reply(400, "2 errors occurred:\n\t* a\n\t* b\n\n"),
        reply(400),
        reply(403, words),
        reply(404, words),
        reply(500, words),
        Reply(400, {}, None),
        Reply(400, {}, {"errors": [words, 5]}),
    ):
        assert not says_gone(answer, words)


@given(st.integers(100, 599), st.none() | st.dictionaries(st.text(), JSON, max_size=3))
def test_every_answer_has_a_meaning_and_a_failure(
    status: int, body: dict[str, Json] | None
) -> None:
    """Total: whatever comes, one meaning; and a failure that does not promise too much."""
    answer = Reply(status, {}, body)
    error = failure(answer, "asking")
    if error.created_nothing:
        assert answer.meaning in CREATED_NOTHING or "unknown role" in str(body)
    assert error.detail.isprintable()


@given(st.text(max_size=400))
def test_somebody_elses_words_cannot_forge_a_line(words: str) -> None:
    """Control characters and length are cut before an error text reaches a log or a caller."""
    detail = failure(reply(500, words), "asking").detail
    assert detail.isprintable()
    assert len(detail) < 400


def test_a_refusal_says_what_to_do() -> None:
    """Missing rights and unknown roles are a plan that was not applied."""
    for answer in (
        reply(403, "permission denied"),
        reply(400, "unknown role taskmint-task-x"),
        reply(400, "unknown role: orders-ro"),
    ):
        error = failure(answer, "creating a task token")
        assert isinstance(error, Unavailable)
        assert (error.code, error.created_nothing) == (Code.PLAN_NOT_APPLIED, True)
        assert "vault apply" in error.fix


def test_a_400_proves_nothing_unless_the_caller_knows() -> None:
    """An engine may answer 400 after it has made something; the token store does not."""
    unsure = failure(reply(400, "bad"), "minting")
    sure = failure(reply(400, "bad"), "creating a token", refused_created_nothing=True)
    assert isinstance(unsure, BackendFailed)
    assert isinstance(sure, BackendFailed)
    assert (unsure.created_nothing, sure.created_nothing) == (False, True)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0", 1), ("-1", 1), ("x", 1), ("99999", 60), ("٣", 1)]
)
def test_retry_after_is_bounded(header: str, seconds: int) -> None:
    """A number of seconds between one and sixty, whatever the server says."""
    error = failure(Reply(429, {"retry-after": header}, {"errors": ["busy"]}), "asking")
    assert isinstance(error, Unavailable)
    assert error.retry_after.total_seconds() == seconds


def test_an_answer_does_not_print_what_it_holds() -> None:
    """P9: a Reply's repr shows its status."""
    assert "hunter2" not in repr(Reply(200, {"x": "hunter2"}, {"data": {"password": "hunter2"}}))
