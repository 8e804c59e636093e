"""The node id: made once, kept beside the ledger, and never guessed again."""

import os
from pathlib import Path

import pytest

from taskmint.daemon.node_id import node_id
from taskmint.errors import Code, ConfigError, Unavailable
from taskmint.model.task_id import is_node_id


def test_a_node_id_is_configured_or_made_once_and_kept(tmp_path: Path) -> None:
    """It stands in every name of ours in Vault, so it must not change."""
    made = node_id(None, tmp_path)

    assert is_node_id(made)
    assert node_id(None, tmp_path) == made
    assert node_id("db-7", tmp_path) == "db-7"


@pytest.mark.parametrize("content", [b"Not An Id\n", b"\xff\xfe", b"", b"x" * 21, b"x" * 2_000_000])
def test_what_is_damaged_is_refused_and_not_replaced(tmp_path: Path, content: bytes) -> None:
    """With another id nobody would take back what stands in Vault under the one that was."""
    kept = tmp_path / "node-id"
    kept.write_bytes(content)
    kept.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        node_id(None, tmp_path)

    assert refused.value.code is Code.CONFIG_INVALID
    assert str(kept) in refused.value.detail
    assert refused.value.findings[0].fix
    assert kept.read_bytes() == content


@pytest.mark.parametrize("what", ["pipe", "directory", "link"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, what: str) -> None:
    """A pipe that nobody writes to, a directory, a link to nowhere."""
    kept = tmp_path / "node-id"
    if what == "pipe":
        os.mkfifo(kept)
    elif what == "directory":
        kept.mkdir()
    else:
        kept.symlink_to("/nowhere")
    with pytest.raises(ConfigError, match="node-id"):
        node_id(None, tmp_path)


def test_without_a_place_to_keep_it_there_is_none(tmp_path: Path) -> None:
    """In one sentence that names the place, with what to do."""
    (tmp_path / "file").touch()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "node-id.new").mkdir()  # root writes everywhere, but not into this
    for name, problem in (
        ("absent", "does not exist"),
        ("file", "is not a directory"),
        ("file/below", "cannot be used: Not a directory"),
        ("open", "can be written by others"),
        ("full", "the node id cannot be kept in"),
    ):
        with pytest.raises(Unavailable) as refused:
            node_id(None, tmp_path / name)
        assert refused.value.code is Code.LEDGER_UNAVAILABLE
        assert problem in refused.value.detail
        assert str(tmp_path / name) in refused.value.detail
        assert refused.value.fix
