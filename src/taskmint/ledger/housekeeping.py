"""
What a ledger needs done by the clock: its head told elsewhere, and what is too old removed.

Each coroutine runs until it is cancelled; the daemon owns them.
"""

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from taskmint.errors import Unavailable
from taskmint.ports import Clock

from .chain import Head
from .export import HEAD_EVENT
from .sqlite import SqliteLedger

RETENTION_INTERVAL: Final = timedelta(hours=1)


def export_head(ledger: SqliteLedger, log: structlog.stdlib.BoundLogger) -> Head:
    """Write the head to the log, which whoever changes the ledger's file cannot change with it."""
    head = ledger.head
    if not ledger.genesis:
        return head  # it could not be read yet, so whose head this would be is not known
    log.info(HEAD_EVENT, head=str(head), ledger=ledger.genesis)
    return head


async def export_heads(
    ledger: SqliteLedger, log: structlog.stdlib.BoundLogger, interval: timedelta
) -> None:
    """Export the head now, at each interval in which it moved, and once more at the end."""
    exported = export_head(ledger, log)
    try:
        while True:
            await asyncio.sleep(interval.total_seconds())
            if ledger.head != exported:
                exported = export_head(ledger, log)
    finally:
        if ledger.head != exported:
            export_head(ledger, log)


async def keep_retention(
    ledger: SqliteLedger,
    clock: Clock,
    log: structlog.stdlib.BoundLogger,
    *,
    free_text: timedelta,
    rows: timedelta | None,
    interval: timedelta = RETENTION_INTERVAL,
) -> None:
    """
    Now and at each interval purge free texts and remove rows beyond their age.

    `rows` None keeps the rows for ever. A ledger that cannot write is left alone until the next
    turn.
    """
    while True:
        now = clock.utcnow()
        try:
            purged = await ledger.purge_older_than(now - free_text)
            removed = await ledger.remove_older_than(now - rows, now=now) if rows else 0
        except Unavailable as error:
            log.warning("ledger_retention_failed", code=error.code, reason=error.detail)
        else:
            if purged or removed:
                log.info("ledger_retention", free_texts=purged, rows=removed)
        await asyncio.sleep(interval.total_seconds())
