"""Windows: half open, in local time, past midnight, and they bound the deadline."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import REPORT, asked, denied, findings, granted, load
from taskmint.errors import Code
from taskmint.policy.window import Recurring, Release

EVERY_DAY = frozenset(range(7))
BERLIN = ZoneInfo("Europe/Berlin")
UTC_ZONE = ZoneInfo("UTC")


def at(text: str) -> datetime:
    """A moment in December 2026 (the first is a Tuesday), in UTC: `02 06:00`."""
    return datetime.fromisoformat(f"2026-12-{text}:00+00:00".replace(" ", "T"))


NIGHT = Recurring(EVERY_DAY, 22 * 60, 6 * 60, UTC_ZONE)
WORK = Recurring(frozenset({1, 2}), 9 * 60, 17 * 60, UTC_ZONE)  # Tuesday, Wednesday
TUESDAY_NIGHT = Recurring(frozenset({1}), 22 * 60, 6 * 60, UTC_ZONE)
ALL_DAY = Recurring(frozenset({1}), 0, 24 * 60, UTC_ZONE)


@pytest.mark.parametrize(
    ("window", "moment", "until"),
    [
        (NIGHT, "01 22:00", "02 06:00"),
        (NIGHT, "02 05:59", "02 06:00"),
        (NIGHT, "02 06:00", None),
        (NIGHT, "01 21:59", None),
        (WORK, "01 09:00", "01 17:00"),
        (WORK, "02 16:59", "02 17:00"),
        (WORK, "02 17:00", None),
        (WORK, "03 12:00", None),
        (TUESDAY_NIGHT, "01 23:00", "02 06:00"),
        (TUESDAY_NIGHT, "02 05:00", "02 06:00"),
        (TUESDAY_NIGHT, "02 23:00", None),
        (TUESDAY_NIGHT, "01 05:00", None),
        (ALL_DAY, "01 00:00", "02 00:00"),
        (ALL_DAY, "01 23:59", "02 00:00"),
        (ALL_DAY, "02 00:00", None),
        (Recurring(EVERY_DAY, 0, 7 * 60, BERLIN), "01 05:59", "01 06:00"),
        (Recurring(EVERY_DAY, 0, 7 * 60, BERLIN), "01 06:00", None),
        (Recurring(frozenset({1}), 0, 7 * 60, BERLIN), "01 23:30", None),
        (Recurring(frozenset({2}), 0, 7 * 60, BERLIN), "01 23:30", "02 06:00"),
        (Release(at("01 08:00"), at("01 12:00")), "01 08:00", "01 12:00"),
        (Release(at("01 08:00"), at("01 12:00")), "01 12:00", None),
        (Release(at("01 08:00"), at("01 12:00")), "01 07:59", None),
    ],
)
def test_a_window_is_open_from_its_first_moment_to_before_its_last(
    window: Recurring | Release, moment: str, until: str | None
) -> None:
    """A window past midnight belongs to the day on which it starts."""
    assert window.open_until(at(moment)) == (at(until) if until else None)


def test_summer_time_moves_with_the_zone() -> None:
    """Two in the morning exists never in one night and twice in another."""
    window = Recurring(EVERY_DAY, 60, 3 * 60, BERLIN)
    spring = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    autumn = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)

    assert window.open_until(spring) == datetime(2026, 3, 29, 1, tzinfo=UTC)
    assert window.open_until(autumn) == datetime(2026, 10, 25, 2, tzinfo=UTC)


@pytest.mark.parametrize(("year", "month", "day"), [(1, 1, 1), (9999, 12, 31)])
def test_at_the_ends_of_the_calendar_nothing_is_open(year: int, month: int, day: int) -> None:
    """And nothing is raised."""
    moment = datetime(year, month, day, 23, 59, tzinfo=UTC)

    assert Recurring(EVERY_DAY, 0, 1, ZoneInfo("Pacific/Kiritimati")).open_until(moment) is None
    assert Recurring(EVERY_DAY, 0, 1, ZoneInfo("Etc/GMT+12")).open_until(moment) is None


@given(
    st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive by contract
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
    st.sampled_from([UTC_ZONE, BERLIN, ZoneInfo("America/New_York")]),
)
def test_what_is_open_closes_in_time(
    now: datetime, days: set[int], start: int, end: int, zone: ZoneInfo
) -> None:
    """The end lies ahead, at most 25 hours, at the wall-clock time that the policy names."""
    until = Recurring(frozenset(days), start, end, zone).open_until(now)

    if until is not None:
        assert now < until <= now + timedelta(hours=25)
        assert Recurring(frozenset(days), start, end, zone).open_until(until - timedelta(seconds=1))


WINDOWS = REPORT.replace("    deadline:", "    windows: []\n    deadline:")


def with_windows(text: str) -> str:
    """The report policy with windows."""
    return WINDOWS.replace("windows: []", f"windows: {text}")


def test_a_window_bounds_the_deadline() -> None:
    """At the start: who is let in near the end gets what is left."""
    policy = load(with_windows('[{from: "11:00", to: "12:02"}]'))
    scope = granted(policy, asked())

    assert scope.lifetime == timedelta(minutes=2)
    assert scope.trace[-2] == (
        "windows: mon,tue,wed,thu,fri,sat,sun 11:00-12:02 UTC is open, "
        "until 2026-12-02T12:02:00+00:00"
    )


def test_the_window_that_is_open_longest_counts() -> None:
    """Two that overlap do not shorten each other."""
    policy = load(with_windows('[{from: "11:00", to: "12:02"}, {from: "11:00", to: "12:04"}]'))

    assert granted(policy, asked()).lifetime == timedelta(minutes=4)


def test_windows_that_close_together_are_no_riddle() -> None:
    """Either will do; which one is told does not matter, and nothing falls over."""
    windows = '[{from: "06:00", to: "12:03"}, {from: "07:00", to: "12:03"}]'
    policy = load(REPORT.replace("    deadline:", f"    windows: {windows}\n    deadline:"))
    assert granted(policy, asked()).lifetime == timedelta(minutes=3)


def test_a_window_that_ends_as_it_begins_lasts_a_day() -> None:
    """From ten to ten; and its end is told in UTC, whatever the machine's zone."""
    closes = Recurring(EVERY_DAY, 600, 600, BERLIN).open_until(at("01 12:00"))
    assert closes == at("02 09:00")
    assert closes is not None
    assert closes.tzinfo is UTC


def test_a_release_is_written_with_its_tag_if_it_has_one() -> None:
    """As it stands in traces and differences."""
    release = Release(at("01 10:00"), at("02 10:00"))
    assert str(release) == "2026-12-01T10:00:00Z to 2026-12-02T10:00:00Z"
    assert str(replace(release, tag="v1")) == f"{release} tag v1"


def test_outside_of_every_window_nothing_is_granted() -> None:
    """Not permitted, with words that say why."""
    policy = load(with_windows('[{days: [mon, tue], from: "00:00", to: "24:00"}]'))
    denial = denied(policy, asked(), Code.NOT_PERMITTED)

    assert denial.detail == "this task may not run at this time, or not for this tag"
    assert denial.trace[-1] == "windows: none is open at 2026-12-02T12:00:00+00:00"


@pytest.mark.parametrize(
    ("context", "allowed"), [({"tag": "v1"}, True), ({"tag": "v2"}, False), ({}, False)]
)
def test_a_release_is_for_its_tag(context: dict[str, str], allowed: bool) -> None:
    """The request says which tag it is about; the policy says when that may be."""
    policy = load(
        with_windows("[{starts: 2026-12-02T12:00:00Z, ends: 2026-12-02T13:00:00Z, tag: v1}]")
    )
    given = asked()
    given = replace(given, request=replace(given.request, context=context))

    if allowed:
        granted(policy, given)
    else:
        denied(policy, given, Code.NOT_PERMITTED)


def test_time_without_a_zone_is_utc() -> None:
    """A recorded input that lost its zone decides, and does not ask the machine where it is."""
    policy = load(with_windows('[{from: "11:59", to: "12:01"}]'))
    given = asked()

    granted(policy, replace(given, now=given.now.replace(tzinfo=None)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[{}]", "windows[0]: recurs or is a release; write from and to, or starts and ends"),
        ('[{from: "10:00"}]', "windows[0]: a recurring window has from and to; write {from:"),
        ("[{zone: UTC}]", "windows[0]: a recurring window has from and to; write {from:"),
        ("[{tag: v1}]", "windows[0]: a release has starts and ends; write both"),
        ("[{starts: 2026-01-01T00:00:00Z}]", "windows[0]: a release has starts and ends; write"),
        (
            "[{starts: 2026-01-01T00:00:00Z, ends: 2026-01-02T00:00:00Z, zone: UTC}]",
            "windows[0]: recurs or is a release",
        ),
        (
            "[{starts: 2026-01-02T00:00:00Z, ends: 2026-01-02T00:00:00Z}]",
            "windows[0]: ends before it starts, so it is never open",
        ),
        ('[{from: "10:00", to: "10:00"}]', "windows[0]: from and to are the same; for a whole day"),
        ('[{from: 10:00, to: "11:00"}]', "windows[0].from: must be text, and YAML reads this as"),
        ('[{from: "25:00", to: "11:00"}]', 'windows[0].from: "25:00" will not do; write a time'),
        ('[{from: "9:00", to: "11:00"}]', 'windows[0].from: "9:00" will not do; write a time of'),
        ('[{days: [], from: "09:00", to: "11:00"}]', "windows[0].days: is too short"),
        ('[{days: [mo], from: "09:00", to: "11:00"}]', "windows[0].days[0]: is not one of the k"),
        ('[{from: "09:00", to: "11:00", zone: Berlin}]', 'windows[0].zone: "Berlin" is no time z'),
        ('[{from: "09:00", to: "11:00", zone: Europe}]', 'windows[0].zone: "Europe" is no time z'),
        ('[{from: "09:00", to: "11:00", zone: ../x}]', 'windows[0].zone: "../x" will not do; wr'),
    ],
)
def test_windows_that_are_never_open_are_found(text: str, expected: str) -> None:
    """Halves, mixtures, empty ones, unknown zones."""
    (only, *_) = findings(with_windows(text))

    assert only.split(": ", 1)[1].startswith(f"tasks.report.{expected}"), only
