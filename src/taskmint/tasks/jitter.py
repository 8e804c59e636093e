"""A little chance, so that what began together does not stay together."""

import random


def between(least: float, most: float) -> float:
    """Return any number between the two; no secret, and where a test is repeated, the same."""
    return random.uniform(least, most)  # noqa: S311 - only spreads load
