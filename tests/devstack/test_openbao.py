"""The embedded OpenBao is a real one, and it can be hurt and healed."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from taskmint.devstack.bao_http import BaoHttp
from taskmint.devstack.openbao import OpenBao
from taskmint.devstack.process import StackError

pytestmark = pytest.mark.real


async def test_it_is_initialised_unsealed_durable_and_audited(tmp_path: Path) -> None:
    """Storage is Raft, the seal is Shamir's, the audit file shows no secret in clear."""
    async with OpenBao.running(tmp_path) as bao, BaoHttp(bao.address, bao.root_token) as http:
        seal = await http.call("GET", "sys/seal-status")
        devices = await http.call("GET", "sys/audit")

        assert (seal.body["type"], seal.body["storage_type"]) == ("shamir", "raft")
        assert devices.data["file/"]["options"]["log_raw"] == "false"
        audit = await asyncio.to_thread(bao.audit_log.read_text)
        paths = [json.loads(line)["request"]["path"] for line in audit.splitlines()]
        assert "sys/audit" in paths
        assert bao.root_token.reveal() not in audit
        assert repr(bao.root_token) == "[secret]"


async def test_it_keeps_what_it_holds_over_seal_stop_and_kill(tmp_path: Path) -> None:
    """After a seal, a stop and a SIGKILL the same data stand at the same address."""
    async with OpenBao.running(tmp_path) as bao, BaoHttp(bao.address, bao.root_token) as http:
        await http.call("PUT", "sys/policies/acl/kept", {"policy": "# kept"})

        await bao.seal()
        assert (await http.send("GET", "sys/policies/acl/kept")).status == 503
        await bao.unseal()
        assert (await http.send("GET", "sys/policies/acl/kept")).status == 200

        await bao.stop()
        await bao.start()
        assert (await http.send("GET", "sys/policies/acl/kept")).status == 200

        await bao.kill()
        await bao.start()
        assert (await http.send("GET", "sys/policies/acl/kept")).status == 200


async def test_a_server_that_does_not_come_up_is_an_error_with_its_log(tmp_path: Path) -> None:
    """A server that ends at once is reported with its own words, not waited for."""
    (tmp_path / "storage").write_text("not a directory")

    with pytest.raises(StackError, match="storage"):
        async with OpenBao.running(tmp_path):
            pass


async def test_frozen_and_thawed(tmp_path: Path) -> None:
    """A server that was stopped by SIGSTOP does not answer, and goes on after SIGCONT."""
    async with OpenBao.running(tmp_path) as bao, BaoHttp(bao.address) as http:
        bao.signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await http.send("GET", "sys/health")
        bao.signal(signal.SIGCONT)

        assert (await http.send("GET", "sys/health")).status == 200
