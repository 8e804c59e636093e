"""Run inside a namespace: accept one connection, and print what our code makes of its peer."""

import json
import socket
import sys

from taskmint.identity.peers import PeerReader


def main() -> None:
    """Accept at the path on the command line, after saying that we listen."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen()
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        accepted, _ = listening.accept()
        peer = PeerReader().read(accepted)
        sys.stdout.write(json.dumps([peer.pid, peer.uid, peer.proof, peer.pidfd]))


main()
