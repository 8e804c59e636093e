"""Policy and config files are opened once, checked, and read; nothing else is believed."""

import os
from pathlib import Path

import pytest

from taskmint.daemon.files import (
    POLICY_FILE_BYTES,
    check_program,
    read_config_file,
    read_policy_files,
)
from taskmint.daemon.policy_watch import fingerprint
from taskmint.errors import Code, ConfigError


def policy_file(directory: Path, name: str = "a.yaml", content: bytes = b"version: 1\n") -> Path:
    """Write a file as an admin would."""
    file = directory / name
    file.write_bytes(content)
    file.chmod(0o644)
    return file


def refusal(*places: Path) -> str:
    """What reading these is refused with."""
    with pytest.raises(ConfigError) as refused:
        read_policy_files(map(str, places))
    assert refused.value.code is Code.POLICY_INVALID
    return refused.value.detail


def test_files_as_named_and_directories_in_order_of_name(tmp_path: Path) -> None:
    """Only *.yaml counts in a directory."""
    for name in ("b.yaml", "a.yaml", "notes.txt"):
        policy_file(tmp_path, name, name.encode())

    assert [content for _, content in read_policy_files([str(tmp_path)])] == [b"a.yaml", b"b.yaml"]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Who may write the policy may grant."""
    file = policy_file(tmp_path)
    file.chmod(mode)

    assert "writable by group or others" in refusal(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
def test_a_file_of_another_owner_is_refused(tmp_path: Path) -> None:
    """Only root's and our own files are believed."""
    file = policy_file(tmp_path)
    os.chown(file, 12345, 12345)

    assert "belongs to uid 12345" in refusal(file)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Who may take a policy away, or put an old one back, may grant."""
    policy_file(tmp_path)
    tmp_path.chmod(mode)

    assert f"{tmp_path}:1:1: is writable by group or others" in refusal(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
def test_a_directory_of_another_owner_is_refused(tmp_path: Path) -> None:
    """Its owner may make it writable at any time."""
    policy_file(tmp_path)
    os.chown(tmp_path, 12345, 12345)

    assert f"{tmp_path}:1:1: belongs to uid 12345" in refusal(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """What it points to could be swapped between check and use."""
    link = tmp_path / "link.yaml"
    link.symlink_to(policy_file(tmp_path))

    assert "cannot be opened" in refusal(link)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A FIFO that nobody writes to must not hang the daemon."""
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo, 0o600)

    assert "not a regular file" in refusal(fifo)


def test_size_absence_and_emptiness(tmp_path: Path) -> None:
    """All findings at once, each with its file."""
    large = policy_file(tmp_path, "large.yaml", b" " * (POLICY_FILE_BYTES + 1))
    empty = tmp_path / "empty"
    empty.mkdir()
    found = refusal(large, empty, tmp_path / "absent.yaml")

    assert "larger than" in found
    assert "no *.yaml file in it" in found
    assert "cannot be opened" in found


def test_the_config_passes_the_same_checks(tmp_path: Path) -> None:
    """A config that others may write could name another Vault."""
    file = policy_file(tmp_path)
    assert read_config_file(str(file)) == b"version: 1\n"
    file.chmod(0o666)
    with pytest.raises(ConfigError) as refused:
        read_config_file(str(file))

    assert refused.value.code is Code.CONFIG_INVALID


def test_what_cannot_be_looked_at_is_a_finding(tmp_path: Path) -> None:
    """A path that the kernel refuses to follow, and a directory where a file should be."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "policy").mkdir(0o755)
    (tmp_path / "policy" / "a.yaml").mkdir(0o755)
    found = refusal(loop, tmp_path / ("x" * 300), tmp_path / "policy")

    assert "loop:1:1: cannot be opened: Too many levels of symbolic links" in found
    assert "xxx:1:1: cannot be opened: File name too long" in found
    assert "a.yaml:1:1: is not a regular file" in found
    assert len(fingerprint([str(loop), str(tmp_path / ("x" * 300)), str(tmp_path / "policy")])) == 3
    with pytest.raises(ConfigError, match="is not a regular file"):
        read_config_file(str(tmp_path))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Whatever is wrong: a daemon reads these files at each reload."""
    directory = tmp_path / "policy"
    directory.mkdir(0o755)
    (directory / "a.yaml").mkdir()
    policy_file(directory, "b.yaml").chmod(0o666)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    refusal(directory, tmp_path / "absent")
    directory.chmod(0o777)
    refusal(directory)

    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_a_program_that_the_config_names_can_be_run_and_is_nobody_elses(tmp_path: Path) -> None:
    """It runs as the daemon. A link is followed: programs often are links."""
    hook = tmp_path / "hook"

    def refused() -> str:
        with pytest.raises(ConfigError) as caught:
            check_program("notices.command", str(hook))
        assert caught.value.code is Code.CONFIG_INVALID
        return caught.value.detail

    assert "hook:1:1: notices.command: cannot be run: No such file" in refused()
    hook.mkdir()
    assert "is not a program; name one" in refused()
    hook.rmdir()
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o644)
    assert "is not a program; name one" in refused()
    hook.chmod(0o775)
    assert "is writable by group or others; run chmod go-w" in refused()
    hook.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(hook)
    check_program("notices.command", str(link))
