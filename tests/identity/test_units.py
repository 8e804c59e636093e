"""Tasks bound to a unit: a real control group, and processes that try to get out of sight (P4)."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from identity.door import Door
from identity.workload import Workload, workload
from taskmint.errors import Code, Unprocessable
from taskmint.identity.bindings import Bindings
from taskmint.identity.cgroups import Mount, open_group, unified_mounts, unit_of
from taskmint.identity.group_events import GroupEvents
from taskmint.identity.peers import PeerReader
from taskmint.identity.units import HeldUnits, UnitWatch
from taskmint.model.scope import BindKind
from taskmint.ports import BoundUnit

NOTICED = 1.0  # seconds; P4: within 1 s of detecting

HYBRID = rb"""31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/uni\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw
"""
PURE_V1 = HYBRID[: HYBRID.index(b"41 31")]
NESTED = b"50 31 0:38 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


class Group:
    """A control group of this test's own."""

    def __init__(self, path: Path, shown: str) -> None:
        self.path = path
        self.shown = shown

    def take(self, pid: int) -> None:
        """Move a process in."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def members(self) -> list[int]:
        """Who is in it."""
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def below(self, name: str) -> "Group":
        """Make a group below it."""
        (self.path / name).mkdir(exist_ok=True)
        return Group(self.path / name, f"{self.shown}/{name}")

    def remove(self) -> None:
        """Kill what is left and remove it, from the leaves up."""
        if not self.path.exists():
            return
        for child in [each for each in self.path.iterdir() if each.is_dir()]:
            Group(child, "").remove()
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for _ in range(500):
            with suppress(OSError):
                self.path.rmdir()
                return
            os.sched_yield()


@pytest.fixture
def unit() -> Iterator[Group]:
    """A group named as systemd names a service's."""
    mounts = list(unified_mounts(Path("/proc/self/mountinfo").read_bytes()))
    name = f"taskmint-test-{os.getpid()}.service"
    try:
        path = Path(mounts[0].point) / name
        path.mkdir()
    except (IndexError, OSError):
        pytest.skip("needs root and a writable cgroup2 mount")
    group = Group(path, f"/{name}")
    yield group
    group.remove()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    """Where callers connect."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "door"))
        listening.listen()
        one = Door(tmp_path / "door", listening, PeerReader())
        yield one
        one.close()


@pytest.fixture
def caller() -> Iterator[Workload]:
    """A process that follows orders."""
    with workload() as one:
        yield one


def descriptors() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def emptied(watch: UnitWatch) -> None:
    """Wait until the watch calls back."""
    called = asyncio.Event()
    watch.on_exit(called.set)
    async with asyncio.timeout(NOTICED):
        await called.wait()


async def test_p4_a_unit_ends_with_its_last_process_not_with_its_first(
    unit: Group, door: Door, caller: Workload
) -> None:
    """P4: double-forked, re-parented and in a session of its own, a grandchild is still in it."""
    unit.take(caller.first_pid)
    with HeldUnits().bind(door.accept(caller)) as watch:
        called = asyncio.Event()
        watch.on_exit(called.set)
        caller.tell("child-takes-over")
        caller.reap()
        grandchild = caller.tell("session").tell("child-takes-over").pid
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(called.wait(), 0.3)
        assert unit.members() == [grandchild]
        assert not watch.exited()
        caller.exit()
        async with asyncio.timeout(NOTICED):
            await called.wait()

        assert watch.exited()


async def test_what_runs_in_a_group_below_the_unit_counts(
    unit: Group, door: Door, caller: Workload
) -> None:
    """A unit that was delegated its group makes others in it; the unit is what is bound."""
    unit.below("worker").take(caller.first_pid)
    with HeldUnits().bind(door.accept(caller)) as watch:
        assert watch.process.path == unit.shown
        assert not watch.exited()
        caller.exit()
        await emptied(watch)


async def test_an_empty_unit_that_is_watched_late_is_noticed_all_the_same(
    unit: Group, door: Door, caller: Workload
) -> None:
    """Empty, and even removed, before anybody asked to be called back."""
    unit.take(caller.first_pid)
    with HeldUnits().bind(door.accept(caller)) as watch:
        caller.exit()
        unit.remove()
        await emptied(watch)


def test_units_are_watched_on_uvloop_as_well(unit: Group, door: Door, caller: Workload) -> None:
    """The daemon's own loop: a poll inside a poll works there too."""

    async def scenario() -> None:
        unit.take(caller.first_pid)
        with HeldUnits().bind(door.accept(caller)) as watch:
            waiting = asyncio.ensure_future(emptied(watch))
            await asyncio.sleep(0.1)
            caller.exit()
            await waiting

    uvloop.run(scenario())


async def test_a_closed_watch_calls_nobody(unit: Group, door: Door, caller: Workload) -> None:
    """And holds no descriptor."""
    unit.take(caller.first_pid)
    before = descriptors()
    watch = HeldUnits().bind(door.accept(caller))
    peers = descriptors() - before - 1
    watch.on_exit(lambda: pytest.fail("it is closed"))
    watch.close()
    watch.close()
    caller.exit()
    await asyncio.sleep(0.05)

    assert descriptors() - before == peers
    with pytest.raises(ValueError, match="closed"):
        watch.exited()


async def test_p10_a_unit_bound_task_costs_one_descriptor(
    unit: Group, door: Door, caller: Workload
) -> None:
    """And one more for all of them together: LimitNOFILE= counts one for each task."""
    unit.take(caller.first_pid)
    units, peer = HeldUnits(), door.accept(caller)
    before = descriptors()
    watches = [units.bind(peer) for _ in range(40)]
    for watch in watches:
        watch.on_exit(lambda: None)
        watch.on_exit(lambda: None)
    with_all = descriptors()
    for watch in watches:
        watch.close()

    assert with_all - before == len(watches) + 1
    assert descriptors() == before


async def test_each_unit_is_told_its_own_end(unit: Group, door: Door, caller: Workload) -> None:
    """Several are watched together; a closed one takes nothing from the others, in any order."""
    units = HeldUnits()
    unit.take(caller.first_pid)
    ended: list[str] = []
    done = asyncio.Event()
    with workload() as other:
        sibling = Group(unit.path.with_name(f"other-{unit.path.name}"), f"/other-{unit.path.name}")
        sibling.path.mkdir()
        try:
            sibling.take(other.first_pid)
            first, closed, second = (
                units.bind(door.accept(who)) for who in (caller, caller, other)
            )
            first.on_exit(lambda: ended.append("first"))
            first.on_exit(done.set)
            closed.on_exit(lambda: ended.append("closed"))
            second.on_exit(lambda: ended.append("second"))
            closed.close()
            caller.exit()
            async with asyncio.timeout(NOTICED):
                await done.wait()
            assert (ended, second.exited()) == (["first"], False)
            done.clear()
            second.on_exit(done.set)
            other.exit()
            async with asyncio.timeout(NOTICED):
                await done.wait()
            assert ended == ["first", "second"]
            first.close()
            second.close()
        finally:
            sibling.remove()


async def test_a_removed_unit_does_not_keep_the_loop_turning(
    unit: Group, door: Door, caller: Workload
) -> None:
    """Its file counts as changed for ever, so it is waited for no more once that was told."""
    unit.take(caller.first_pid)
    with HeldUnits().bind(door.accept(caller)) as watch:
        held = descriptors()
        caller.exit()
        unit.remove()
        await emptied(watch)

        assert descriptors() == held
        assert watch.exited()


async def test_after_a_restart_the_same_unit_is_found_and_no_other(
    unit: Group, door: Door, caller: Workload
) -> None:
    """P8: by path, inode and boot; emptied, or made again under its name, it is another."""
    unit.take(caller.first_pid)
    bindings = Bindings(PeerReader())
    with bindings.bind(door.accept(caller), BindKind.UNIT) as watch:
        bound = watch.process
    assert isinstance(bound, BoundUnit)
    again = bindings.reopen(bound)
    assert again is not None
    again.close()
    elsewhere = [
        BoundUnit(bound.path, bound.id + 1, bound.boot_id),
        BoundUnit(bound.path, bound.id, "another boot"),
        BoundUnit(bound.path + "x", bound.id, bound.boot_id),
    ]
    assert [bindings.reopen(other) for other in elsewhere] == [None, None, None]
    caller.exit()
    while unit.members():
        await asyncio.sleep(0.01)

    assert bindings.reopen(bound) is None
    unit.remove()
    unit.path.mkdir()
    assert bindings.reopen(bound) is None


def refusal(bind: Callable[[], UnitWatch]) -> str:
    """Return why a bind is refused; always 422 bind_refused."""
    with pytest.raises(Unprocessable) as raised, bind():
        raise AssertionError("must be refused")
    assert raised.value.code is Code.BIND_REFUSED
    return raised.value.detail


async def test_without_a_unit_or_a_hierarchy_that_tells_a_bind_is_refused(
    unit: Group, door: Door, caller: Workload, tmp_path: Path
) -> None:
    """The root group is never empty; a pure v1 host never says so; the dead are in no unit."""
    peer = door.accept(caller)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(PURE_V1)
    Group(unit.path.parent, "").take(caller.first_pid)

    assert "no unit" in refusal(lambda: HeldUnits().bind(peer))
    unit.take(caller.first_pid)
    assert "cgroup2" in refusal(lambda: HeldUnits(str(mountinfo)).bind(peer))
    assert "cgroup2" in refusal(lambda: HeldUnits(str(tmp_path / "absent")).bind(peer))
    caller.exit()
    assert "exited" in refusal(lambda: HeldUnits().bind(peer))


# --- texts of the kernel ---------------------------------------------------------------------


def test_the_unified_hierarchy_is_found_through_mountinfo() -> None:
    """Beside the old ones, under an escaped name, or from inside a container."""
    assert list(unified_mounts(HYBRID)) == [Mount("/", "/sys/fs/cgroup/uni fied")]
    assert list(unified_mounts(NESTED)) == [Mount("/docker/abc", "/sys/fs/cgroup")]
    assert list(unified_mounts(PURE_V1)) == []
    assert list(unified_mounts(b"garbage\n1 2 3\n - cgroup2\n")) == []


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/", "/a.service", "/m/a.service"),
        ("/", "/", "/m/"),
        ("/docker/abc", "/docker/abc/x.scope", "/m/x.scope"),
        ("/docker/abc", "/docker/abc", "/m"),
        ("/docker/abc", "/docker/abcdef", None),
        ("/docker/abc", "/system.slice/a.service", None),
    ],
)
def test_a_mount_shows_only_what_is_below_its_root(
    root: str, path: str, expected: str | None
) -> None:
    """Whole names are compared, never the beginnings of names."""
    assert Mount(root, "/m").place(path) == expected


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("/system.slice/a.service", "/system.slice/a.service"),
        ("/system.slice/a.service/worker/1", "/system.slice/a.service"),
        (
            "/user.slice/user@1000.service/app.slice/app-x.scope",
            "/user.slice/user@1000.service/app.slice/app-x.scope",
        ),
        ("/kubepods/burstable/pod1/abc", "/kubepods/burstable/pod1/abc"),
        ("/", None),
        ("/../outside.service", None),
        ("", None),
    ],
)
def test_the_deepest_service_or_scope_is_the_unit(group: str, expected: str | None) -> None:
    """Groups below it are its own; without a unit, the group itself; the root is none."""
    assert unit_of(group) == expected


def test_a_link_is_not_followed_to_another_group(tmp_path: Path) -> None:
    """What is opened is the directory of that name."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "cgroup.events").write_text("populated 1\n")
    (tmp_path / "link").symlink_to(real)
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"1 1 0:1 / {tmp_path} rw - cgroup2 c rw\n")
    opened = open_group("/real", str(mountinfo))
    assert opened is not None
    os.close(opened[0])

    assert open_group("/link", str(mountinfo)) is None
    assert open_group("/nowhere", str(mountinfo)) is None


async def test_p4_a_unit_that_cannot_be_watched_counts_as_ended(tmp_path: Path) -> None:
    """P4: without a descriptor for the epoll nobody would hear of its end."""

    class Full(GroupEvents):
        """What a daemon without descriptors has."""

        def watch(self, events: int, changed: Callable[[], None]) -> None:
            raise OSError(errno.EMFILE, f"no room for {events} and {changed}")

    file = tmp_path / "cgroup.events"
    file.write_text("populated 1\n")
    ended = asyncio.Event()
    with UnitWatch(BoundUnit("/a", 1, "b"), os.open(file, os.O_RDONLY), Full()) as watch:
        watch.on_exit(ended.set)
        async with asyncio.timeout(5):
            await ended.wait()
