"""The `history` facts of a policy: an hour, counted as it passes, the same as if added up."""

from hypothesis import given
from hypothesis import strategies as st

from taskmint.model.scope import HistoryFacts
from taskmint.model.spiffe import SpiffeId
from taskmint.tasks.history import HOUR_SECONDS, MOST_REMEMBERED, History

ALICE, BOB = SpiffeId("example.org", "/alice"), SpiffeId("example.org", "/bob")
Asked = tuple[SpiffeId, float, int, bool]

asked = st.lists(
    st.tuples(
        st.sampled_from([ALICE, BOB]),
        st.floats(0, HOUR_SECONDS / 4),  # since the one before
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=40,
)


def added_up(all_of_it: list[Asked], identity: SpiffeId, now: float) -> HistoryFacts:
    """The slow way."""
    recent = [one for one in all_of_it if one[0] == identity and one[1] > now - HOUR_SECONDS]
    grants = sum(granted for *_, granted in recent)
    return HistoryFacts(grants, len(recent) - grants, len({process for *_, process, _ in recent}))


@given(asked)
def test_what_is_counted_is_what_would_be_added_up(steps: list[Asked]) -> None:
    """After every request, of everybody, whenever it is asked for."""
    history, seen, now = History(), list[Asked](), 0.0
    for identity, pause, process, granted in steps:
        now += pause
        history.record(identity, (process, None), now, granted=granted)
        seen.append((identity, now, process, granted))
        for who in (ALICE, BOB):
            assert history.facts(who, now) == added_up(seen, who, now)
    for who in (ALICE, BOB):
        assert history.facts(who, now + HOUR_SECONDS + 1) == HistoryFacts()


def test_p10_a_busy_identity_is_remembered_in_bounded_memory() -> None:
    """The newest count: it is at least as busy as it says."""
    history = History()
    for number in range(3 * MOST_REMEMBERED):
        history.record(ALICE, (number, None), 1.0, granted=number % 2 == 0)

    most = MOST_REMEMBERED
    assert history.facts(ALICE, 2.0) == HistoryFacts(most, most, 2 * most)


def test_denials_and_grants_push_each_other_out_of_nothing() -> None:
    """Who floods the daemon with what is refused does not get rid of what was granted."""
    for granted, kept in (
        (True, HistoryFacts(3, MOST_REMEMBERED, 2)),
        (False, HistoryFacts(MOST_REMEMBERED, 3, 2)),
    ):
        history = History()
        for _ in range(3):
            history.record(ALICE, (1, None), 1.0, granted=granted)
        for _ in range(2 * MOST_REMEMBERED):
            history.record(ALICE, (2, None), 2.0, granted=not granted)
        assert history.facts(ALICE, 3.0) == kept
        assert history.facts(ALICE, 1.0 + HOUR_SECONDS).processes == 1
