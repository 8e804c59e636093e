"""
`python workload.py SOCKET DEFINITION`, a token on standard input: starts a task, and lives.

Prints `{"status": ..., "body": {"id": ...}}`. No secret is printed: the credentials die unread.
"""

import http.client
import json
import socket
import sys


class Door(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("taskmint")
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


if __name__ == "__main__":
    door = Door(sys.argv[1])
    token = sys.stdin.readline().strip()
    headers = {
        "X-Taskmint-Request": "true",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
    }
    door.request("POST", "/v1/tasks", json.dumps({"task": sys.argv[2]}), headers)
    reply = door.getresponse()
    body = json.loads(reply.read())
    sys.stdout.write(json.dumps({"status": reply.status, "body": {"id": body.get("id")}}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
