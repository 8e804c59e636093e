"""Policy and config files are opened once, checked, and read; nothing else is believed."""

import os
from pathlib import Path

import pytest

from taskmint.daemon.files import (
    POLICY_FILE_BYTES,
    node_id,
    read_config_file,
    read_policy_files,
)
from taskmint.errors import Code, ConfigError
from taskmint.model.task_id import is_node_id


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


def test_a_node_id_is_configured_or_made_once_and_kept(tmp_path: Path) -> None:
    """It stands in every name of ours in Vault, so it must not change."""
    made = node_id(None, tmp_path)

    assert is_node_id(made)
    assert node_id(None, tmp_path) == made
    assert node_id("db-7", tmp_path) == "db-7"
    (tmp_path / "node-id").write_text("Not An Id\n")
    with pytest.raises(ValueError, match="does not hold a node id"):
        node_id(None, tmp_path)
