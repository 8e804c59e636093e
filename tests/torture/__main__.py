"""`python tests/torture` kills until it is enough; the package's modules are found from tests/."""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    sys.exit(import_module("torture.command").main())
