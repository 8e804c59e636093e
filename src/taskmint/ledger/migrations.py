"""
What brings the tables of an older ledger to this program's schema, step by step, forward only.

No step touches a row: the chain is what it was. LedgerWriter does all that are due in one
transaction, with a row that says so. A schema that is newer than ours is refused, not guessed at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Migration:
    """The statements that make tables of schema `to` out of those of the schema before."""

    to: int
    statements: tuple[str, ...]


MIGRATIONS: Final[Sequence[Migration]] = (
    # Row 1 follows from the schema that the file was made with, which must outlive migrations.
    Migration(2, ("ALTER TABLE header ADD COLUMN first_schema INTEGER NOT NULL DEFAULT 1",)),
)


def statements_from(schema: int) -> Sequence[str]:
    """Return what is to be done, in order, to tables of this schema."""
    due = (migration for migration in MIGRATIONS if migration.to > schema)
    return [statement for migration in due for statement in migration.statements]
