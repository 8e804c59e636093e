"""
Callers that never stop calling, run in the machine by an ordinary user until their input ends.

Two ask for nothing but health, again and again, and repeat nothing; the others start a task and
end it. Prints how many calls of each kind succeeded, and what the others were told, as JSON.
"""

import json
import sys
import threading
import time
from collections import Counter

from taskmint.client import calls
from taskmint.client.blocking import BlockingClient, BlockingTask
from taskmint.client.blocking_transport import exchange
from taskmint.client.errors import ClientError

TASK = {"task": "orders-report", "parameters": {"region": "eu"}, "purpose": "load"}
PAUSE_SECONDS = 0.2


class Callers:
    """The threads and what became of their calls."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        self._threads += [threading.Thread(target=self._work) for _ in range(4)]

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish its call."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            request = calls.request("GET", "/v1/health", {})
            try:
                exchange(calls.default_socket(), request, 20)
                self.counts["health"] += 1
            except ClientError as error:
                self.failures.append(f"health: {error.detail}")
            time.sleep(0.005)

    def _work(self) -> None:
        client = BlockingClient()
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                task = client.start(TASK)
                if not isinstance(task, BlockingTask):
                    raise TypeError("this needs no approval")
                self.counts["start"] += 1
                task.end("succeeded")
                self.counts["end"] += 1
            except ClientError as error:
                self.failures.append(f"task: {error.detail}")


if __name__ == "__main__":
    callers = Callers()
    callers.start()
    sys.stdin.read()
    callers.stop()
    sys.stdout.write(json.dumps({"counts": callers.counts, "failures": callers.failures}) + "\n")
