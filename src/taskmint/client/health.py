"""
`python -m taskmint.client.health`: exits 0 when the daemon on TASKMINT_SOCKET answers, else 1.

For health checks of containers: it needs no identity and no role.
"""

import sys
from typing import Final

from taskmint.model.printable import printable

from . import calls
from .blocking_transport import exchange
from .errors import ClientError

_SECONDS: Final = 4.0


def main() -> int:
    """Ask `GET /v1/health`; returns the exit code."""
    try:
        exchange(calls.default_socket(), calls.request("GET", "/v1/health", {}), _SECONDS)
    except ClientError as error:
        sys.stderr.write(printable(f"{error.detail}; {error.fix}") + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
