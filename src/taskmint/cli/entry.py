"""
The `taskmint` command: `run` goes its own short way, everything else goes to the tree of main.py.

`taskmint run` wraps other people's programs. click alone would add 30 ms to each of them.
"""

import gc
import sys


def main() -> None:
    """Hand the arguments to whoever parses them; exits."""
    if sys.argv[1:2] == ["run"]:
        gc.disable()  # importing keeps the collector busy with what stays; run switches it on
        from .run_command import main as run  # noqa: PLC0415 - the point of this module

        sys.exit(run(sys.argv[2:]))
    from .main import main as tree  # noqa: PLC0415 - the point of this module

    tree()
