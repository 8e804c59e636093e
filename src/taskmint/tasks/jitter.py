"""A little chance, so that what began together does not stay together."""

import secrets
from typing import Final

_CHANCE: Final = secrets.SystemRandom()


def between(least: float, most: float) -> float:
    """Return any number between the two."""
    return _CHANCE.uniform(least, most)
