"""
A workload, run as a script: asks the Workload API for a token and says what it got.

    python fetch_svid.py SOCKET UID AUDIENCE

It becomes UID after its imports, so that a user who may not read our files can play a part.
Prints `SPIFFE_ID TOKEN`, or the name of the gRPC status.
"""

import asyncio
import os
import sys

import grpc
import grpc.aio
from spiffe._proto import workload_pb2

HEADER = (("workload.spiffe.io", "true"),)


async def fetch(socket: str, audience: str) -> str:
    """Make the one call."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(
            "/SpiffeWorkloadAPI/FetchJWTSVID",
            request_serializer=workload_pb2.JWTSVIDRequest.SerializeToString,
            response_deserializer=workload_pb2.JWTSVIDResponse.FromString,
        )
        try:
            answer = await call(workload_pb2.JWTSVIDRequest(audience=[audience]), metadata=HEADER)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return " ".join(f"{svid.spiffe_id} {svid.svid}" for svid in answer.svids)


if __name__ == "__main__":
    _, path, uid, wanted = sys.argv
    if int(uid) != os.geteuid():
        os.setgid(int(uid))
        os.setuid(int(uid))
    sys.stdout.write(asyncio.run(fetch(path, wanted)))
