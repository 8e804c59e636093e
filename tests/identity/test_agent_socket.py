"""Row 23: whoever could have bound the agent's path decides whether it is believed."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from identity.agent import Agent
from taskmint.clock import SystemClock
from taskmint.identity.agent_socket import NOTHING_THERE, AgentSocket, heard_at
from taskmint.identity.channel import StreamLost
from taskmint.identity.workload_api import Absence, WorkloadApi

from fakes.clock import SteppedClock

OTHERS_GROUP: Final = os.getegid() or 4242


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the agent keeps its socket."""
    place = tmp_path / "public"
    place.mkdir(mode=0o755)
    return place


@pytest.fixture
def bound(directory: Path) -> Iterator[Path]:
    """The agent's socket, which everybody may write to, as SPIRE leaves it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "api.sock"))
        (directory / "api.sock").chmod(0o777)
        yield directory / "api.sock"


def at(path: Path) -> AgentSocket:
    """That path, trusted as a daemon does without further configuration."""
    return AgentSocket.at(f"unix://{path}", None)


def test_the_socket_of_root_or_of_ourselves_is_seen(bound: Path) -> None:
    """By its inode, so that another one at the same path is told from it."""
    assert at(bound).look().inode == (bound.stat().st_dev, bound.stat().st_ino)
    assert at(bound).look().why_not is None


@pytest.mark.parametrize(
    ("mode", "group", "trusted"),
    [
        (0o755, OTHERS_GROUP, True),
        (0o750, OTHERS_GROUP, True),
        (0o777, OTHERS_GROUP, False),
        (0o757, OTHERS_GROUP, False),
        (0o775, OTHERS_GROUP, False),
        (0o1777, OTHERS_GROUP, True),  # as /tmp, below which SPIRE's default lies
    ],
)
def test_a_directory_on_the_way(
    directory: Path, bound: Path, mode: int, group: int, trusted: object
) -> None:
    """Who may write to it may put another socket there, unless it is sticky."""
    os.chown(directory, -1, group)
    directory.chmod(mode)
    standing = at(bound).look()

    assert (standing.inode is not None) is trusted
    if not trusted:
        assert standing.why_not == f"others may write to the directory {directory}"


def test_what_belongs_to_somebody_else_is_refused(bound: Path) -> None:
    """The first step that does is named; a uid in the config makes it trusted."""
    stranger = os.geteuid() + 4242
    standing = AgentSocket(str(bound), frozenset({stranger})).look()

    assert standing.inode is None
    assert "/ belongs to uid 0" in (standing.why_not or "")
    assert stranger in AgentSocket.at("unix:///a", stranger).trusted
    assert AgentSocket.at("unix:///a", None).trusted == {0, os.geteuid()}


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_links_are_looked_at_with_what_they_point_to(
    tmp_path: Path, directory: Path, bound: Path, mode: int
) -> None:
    """A link in a good place to a bad one is a bad one."""
    directory.chmod(mode)
    (tmp_path / "absolute").symlink_to(directory)
    (tmp_path / "relative").symlink_to(f"../{tmp_path.name}/absolute")

    assert (at(tmp_path / "relative" / bound.name).look().inode is not None) is (mode == 0o755)


def test_links_without_an_end_are_refused(tmp_path: Path) -> None:
    """And not followed for ever."""
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")

    assert "symbolic links" in (at(tmp_path / "one").look().why_not or "")


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    """A file is not connected to; where nothing is, there is nothing to refuse."""
    (tmp_path / "file").touch()

    assert "is no socket" in (at(tmp_path / "file").look().why_not or "")
    assert at(tmp_path / "nothing").look() == NOTHING_THERE


async def test_an_agent_that_anybody_could_have_been_is_not_believed(directory: Path) -> None:
    """Row 23: it says why, connects to nothing, and goes on as soon as the path is safe."""
    agent = Agent(directory / "api.sock")
    directory.chmod(0o777)
    async with agent.serving(), WorkloadApi(agent.endpoint, SteppedClock()) as api:
        async with asyncio.timeout(5):
            while "others may write" not in (api.ready() or ""):
                await asyncio.sleep(0.02)
        assert api.absence() is Absence.UNTRUSTED
        assert agent.opened == 0
        directory.chmod(0o755)
        async with asyncio.timeout(6):
            await api.first_bundles()


async def test_a_path_that_becomes_unsafe_is_left(directory: Path) -> None:
    """What was heard until then grows old, as if the agent were away."""
    agent = Agent(directory / "api.sock")
    async with agent.serving(), WorkloadApi(agent.endpoint, SystemClock()) as api:
        await api.first_bundles()
        directory.chmod(0o777)
        async with asyncio.timeout(6):
            while api.age() == 0:
                await asyncio.sleep(0.02)


async def test_an_agent_that_slips_in_is_not_heard(directory: Path, tmp_path: Path) -> None:
    """What connected is known by what stands there after the first message, and not before."""
    agent, other = Agent(directory / "api.sock"), Agent(tmp_path / "other.sock")
    async with agent.serving(), other.serving():
        place = at(agent.socket)
        there = await asyncio.to_thread(place.look)
        elsewhere = await asyncio.to_thread(at(other.socket).look)
        for seen, heard in ((there, True), (elsewhere, False)):
            async with grpc.aio.insecure_channel(agent.endpoint) as channel:
                messages = heard_at(place, seen, stream(channel))
                if heard:
                    assert await anext(messages)
                else:
                    with pytest.raises(StreamLost, match="SOCKET_REPLACED"):
                        await anext(messages)
                await messages.aclose()


def stream(channel: grpc.aio.Channel) -> Any:
    """Open the stream of JWT bundles; what comes on it need not be understood here."""
    return channel.unary_stream("/SpiffeWorkloadAPI/FetchJWTBundles")(b"")
