"""
The daemon's side of connections and floods, as a process of its own: `python -m bench.door DIR`.

The real listener, prover and task API on uvloop; the life of tasks stands on fakes.
"""

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

import structlog
import uvloop

from identity.agent import OWN_ID, Agent
from identity.signer import AUDIENCE, claims
from taskmint.api.activation import SocketFile, bound_socket
from taskmint.api.connection import Timeouts, TlsDoor
from taskmint.api.listener import ListenerLimits
from taskmint.api.serving import serving_http
from taskmint.api.task_api import TaskApi
from taskmint.errors import TaskmintError
from taskmint.identity.believer import Believer
from taskmint.identity.jwt_svid import JwtRules
from taskmint.identity.peers import PeerReader
from taskmint.identity.prover import Prover
from taskmint.identity.tls import TlsTerms
from taskmint.identity.workload_api import WorkloadApi
from taskmint.model.peer import Peer

from .identity import WORKLOAD
from fakes.clock import SteppedClock
from tasks.world import World


async def serve(directory: Path) -> None:
    """Serve the task API until standard input closes; leave what a client needs in a file."""
    agent, clock = Agent(directory / "agent.sock"), SteppedClock()
    world = World(clock=clock)
    async with (
        agent.serving(),
        WorkloadApi(agent.endpoint, clock) as api,
        world.running() as service,
        bound_socket(SocketFile(directory / "door")) as sock,
    ):
        while api.trust.own is None or api.ready() is not None:
            await api.changed(api.version)
        prover = Prover(Believer(api), clock, JwtRules(AUDIENCE))
        leaf = agent.root.workload(WORKLOAD)
        facts = {
            "chain": leaf.chain[0].hex(),
            "root": leaf.chain[1].hex(),
            "key": leaf.pkcs8.hex(),
            "token": agent.authority.token(claims(int(time.time()), sub=WORKLOAD)),
            "own": OWN_ID,
        }
        task_api = TaskApi(service, prover, {}, world.seen, structlog.stdlib.get_logger())
        async with serving_http(
            sock,
            lambda serving: task_api.application(serving, 65536),
            limits=ListenerLimits(timeouts=Timeouts(header=1.0), connections_per_uid=4096),
            reader=PeerReader(),
            inherited=False,
            tls=TlsDoor(TlsTerms(prover), ignore),
        ):
            (directory / "facts.json").write_text(json.dumps(facts))
            await asyncio.to_thread(sys.stdin.read)


def ignore(_peer: Peer, _error: TaskmintError) -> None:
    """Nobody is told: only the handshake is measured."""


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run(serve(Path(sys.argv[1])))
