"""The statements of a database role and its connection in, what is wrong with them out: pure."""

from collections.abc import Iterator, Sequence

from taskmint.model.scope import ProofLevel
from taskmint.policy.database import lint_creation, lint_revocation
from taskmint.policy.mysql import lint_mysql_creation, lint_mysql_revocation

from .changes import is_mysql, is_postgresql
from .live import Fields


def statement_findings(
    connection: Fields, proof: ProofLevel, creation: Sequence[str], revocation: Sequence[str]
) -> Iterator[str]:
    """Lint by the database that the connection leads to, and for what is promised of its roles."""
    if is_postgresql(connection):
        yield from lint_creation(creation)
        if proof is not ProofLevel.LEASE or revocation:
            yield from lint_revocation(revocation)
    elif is_mysql(connection):
        yield from lint_mysql_creation(creation)
        if proof is not ProofLevel.LEASE or revocation:
            yield from lint_mysql_revocation(revocation)
        if proof is ProofLevel.SESSIONS:
            yield "sessions is promised, and proven for PostgreSQL only"
    elif proof is not ProofLevel.LEASE:
        yield f"{proof} is promised, and proven for PostgreSQL, MySQL and MariaDB only"
