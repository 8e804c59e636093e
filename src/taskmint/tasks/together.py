"""Several pieces of work at once, the first on the very task that asks: each task spared counts."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """
    Return what each came to, in order; one that raises, or a cancellation, ends the others.

    That another than the first has raised is seen when the first has come to its end.
    """
    first, *rest = work
    others = [asyncio.create_task(one) for one in rest]
    try:
        return [await first, *[await other for other in others]]
    finally:
        for other in others:
            other.cancel()
