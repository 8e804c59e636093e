"""Certificates and signed keys through the real daemon: asked for, delivered, revoked, found."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from policy.keys import key, request, ssh_key
from taskmint.devstack.stack import Stack

from e2e.ground import Workload, admin

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("daemon")]
KEYS = {"web": request(), "host": ssh_key()}


async def revoked_serials(stack: Stack) -> set[int]:
    """The revocation list, as anybody reads it."""
    async with stack.admin() as vault:
        text = (await vault.call("GET", "pki/cert/crl")).body["data"]["certificate"]
    return {one.serial_number for one in x509.load_pem_x509_crl(text.encode())}


async def test_p5_certificates_are_on_the_list_when_the_end_is_answered(
    stack: Stack, workload: Workload
) -> None:
    """
    P5: 200 on DELETE means that the fetched list names both certificates; what cannot be taken
    back said so from the start, and when it expires.
    """
    task = await workload.start("e2e-deploy", public_keys=KEYS, ttl_seconds=120)
    given = task["credentials"]
    made = [
        x509.load_pem_x509_certificate(given[name]["data"]["certificate"].encode())
        for name in ("web", "made")
    ]
    assert made[0].public_key() == key("p256").public_key()
    for certificate in made:
        assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).seconds <= 150
    signed = load_ssh_public_identity(given["host"]["data"]["signed_key"].strip().encode())
    assert isinstance(signed, SSHCertificate)
    assert [given[name]["revocable"] for name in ("web", "made", "host")] == [True, True, False]
    assert given["host"]["expires_at"] is not None

    ended = await workload.end(task)
    assert (ended.status, ended.body["state"]) == (200, "revoked")
    assert {one.serial_number for one in made} <= await revoked_serials(stack)


async def test_an_auditor_finds_the_task_of_a_certificate(stack: Stack, workload: Workload) -> None:
    """From a serial number to the task, and from the task to its serial numbers."""
    task = await workload.start("e2e-deploy", public_keys=KEYS)
    serial = task["credentials"]["web"]["data"]["serial_number"]
    await workload.end(task)

    ledger = ("--ledger", str(stack.paths.ledger))
    code, said = await admin(stack, "audit", "find", serial, *ledger)
    assert (code, task["id"] in said) == (0, True)
    code, said = await admin(stack, "audit", "show", task["id"], *ledger)
    assert (code, serial.replace(":", "-") in said) == (0, True)
    assert "PRIVATE KEY" not in said


async def test_a_hostile_key_is_refused_with_its_code(workload: Workload) -> None:
    """Before anything is minted; nothing of it comes back."""
    keys = {**KEYS, "web": request(common_name="admin.example.org")}
    reply = await workload.ask(
        "POST", "/v1/tasks", json={"task": "e2e-deploy", "public_keys": keys}
    )
    assert (reply.status, reply.body["code"]) == (422, "public_key_invalid")
    assert "admin" not in str(reply.body)
    keys["web"] = "x" * 8193
    reply = await workload.ask(
        "POST", "/v1/tasks", json={"task": "e2e-deploy", "public_keys": keys}
    )
    assert (reply.status, reply.body["code"]) == (400, "malformed_request")


async def test_a_wrapped_command_finds_its_certificate_in_a_file(
    stack: Stack, tmp_path: Path
) -> None:
    """`taskmint run` sends the public keys from files; a private key stays where it is."""
    (tmp_path / "web.csr").write_text(request())
    (tmp_path / "id.pub").write_text(f"{ssh_key()} somebody@somewhere\n")
    process = await asyncio.create_subprocess_exec(
        *(str(stack.python["orders-report"]), "-m", "taskmint", "run", "--task", "e2e-deploy"),
        *("--public-key", f"web={tmp_path}/web.csr", "--public-key", f"host={tmp_path}/id.pub"),
        *("--env", "CERTIFICATE=web.certificate", "--env", "SIGNED=host.signed_key"),
        *("--", "sh", "-euc", 'printf %s "$CERTIFICATE"; printf "\\n%s" "$SIGNED"'),
        env={"PATH": os.environ["PATH"], **stack.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    pem, _, signed = out.decode().rpartition("\n-----END CERTIFICATE-----\n")
    certificate = x509.load_pem_x509_certificate(f"{pem}\n-----END CERTIFICATE-----\n".encode())
    assert certificate.public_key() == key("p256").public_key()
    assert signed.startswith("ssh-ed25519-cert-v01@openssh.com ")
    assert certificate.serial_number in await revoked_serials(stack)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("-----BEGIN PRIVATE KEY-----\nx\n", "is a private key; that stays with you"),
        ("x" * 8193, "is longer than 8192 characters"),
        ("ü", "is not text"),
        (None, "No such file"),
    ],
)
async def test_a_file_that_is_no_public_key_is_not_sent(
    tmp_path: Path, content: str | None, said: str
) -> None:
    """125, as for all wrong use; nobody was asked anything."""
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskmint", "run", "--task", "x"),
        *("--public-key", f"web={file}", "--", "true"),
        env={"PATH": os.environ["PATH"], "TASKMINT_SOCKET": "/none"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 125
    assert said in err.decode()
