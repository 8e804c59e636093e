"""One SPIRE, one stack and one daemon that has its identity from it."""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from cryptography.hazmat.primitives import serialization

from spire.servers import Spire
from taskmint.devstack.daemon_process import Daemon
from taskmint.devstack.stack import DAEMON, Stack
from taskmint.devstack.stack_files import DAEMON_ID, WORKLOAD_ID
from taskmint.identity.jwt_bundle import parse_jwt_bundle

PARTNER = "partner.test"
PARTNERS_ID = f"spiffe://{PARTNER}/auditor"
POLICY = f"""
version: 1
tasks:
  spire-report:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [{WORKLOAD_ID}, {PARTNERS_ID}]
    deadline: {{default: 5m, max: 30m}}
    ends: {{deadline_only: true}}
    scope:
      warehouse: {{secret: {{mount: database, path: creds/orders-ro-eu, proof: login}}}}
  spire-proving:
    owner: team-tests@example.org
    class: batch
    dead_man: 10s
    who: [{WORKLOAD_ID}]
    deadline: {{default: 5m, max: 30m}}
    ends: {{reprove: 4s}}
    scope:
      warehouse: {{secret: {{mount: database, path: creds/orders-ro-eu, proof: login}}}}
"""


@dataclass(frozen=True)
class World:
    """Everything that runs; `entry` is the workload's own, which is this process."""

    stack: Stack
    spire: Spire
    partner: Spire
    daemon: Daemon
    entry: str


def own_path() -> str:
    """The selector by which the agent knows this process."""
    return f"unix:path:{os.path.realpath('/proc/self/exe')}"


async def believe(stack: Stack, spire: Spire) -> None:
    """Let OpenBao believe SPIRE's JWT-SVIDs, as an admin would by its JWKS."""
    bundle = parse_jwt_bundle(await spire.bundle())
    keys = [
        authority.key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
        for authority in bundle.values()
    ]
    async with stack.admin() as vault:
        settings = {"jwt_validation_pubkeys": keys, "jwt_supported_algs": ["ES256"]}
        await vault.call("POST", "auth/jwt/config", settings)


def configure(stack: Stack, spire: Spire) -> None:
    """Point the daemon at SPIRE, and add these tests' definitions."""
    config = json.loads(stack.paths.config.read_text())
    config["identity"] = {
        "workload_api": spire.endpoint,
        "delegation": spire.admin_endpoint,
        "trust_domains": [spire.trust_domain, PARTNER],
    }
    stack.paths.config.write_text(json.dumps(config))
    policy = stack.paths.policy / "spire.yaml"
    policy.write_text(POLICY)
    policy.chmod(0o644)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Start it all; an identity is a path here, so nothing else may run on these interpreters."""
    with tempfile.TemporaryDirectory(prefix="taskmint-spire-") as name:
        directory = Path(name)
        async with (
            Stack.running(dead_man=timedelta(seconds=10)) as stack,
            Spire.running(directory / "own", "example.org", DAEMON_ID) as spire,
            Spire.running(directory / "partner", PARTNER) as partner,
        ):
            await spire.federate(partner)
            await asyncio.to_thread(configure, stack, spire)
            await stack.apply()
            await spire.register(
                DAEMON_ID,
                f"unix:path:{stack.python[DAEMON]}",
                federates_with=f"spiffe://{PARTNER}",
            )
            entry = await spire.register(WORKLOAD_ID, own_path())
            await partner.register(PARTNERS_ID, own_path())
            await believe(stack, spire)
            async with stack.daemon() as daemon:
                yield World(stack, spire, partner, daemon, entry)
