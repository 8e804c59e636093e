"""`taskmint vault statements`: what to run in a database, and what to write into its roles."""

from collections.abc import Mapping
from typing import Final

import click

from taskmint.policy.database import (
    POSTGRESQL_CREATION,
    POSTGRESQL_PREPARATION,
    POSTGRESQL_PROBE,
    POSTGRESQL_REVOCATION,
    USERNAME_TEMPLATE,
)
from taskmint.policy.mysql import (
    MARIADB_CREATION,
    MARIADB_PREPARATION,
    MARIADB_REVOCATION,
    MYSQL_PREPARATION,
    MYSQL_REVOCATION,
)

_ONCE: Final = "preparation, run once in the database"
_CREATION: Final = "creation_statements of a role"
_REVOCATION: Final = "revocation_statements of a role"
_TEMPLATE: Final = f"{USERNAME_TEMPLATE}\n"
_STATEMENTS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "postgresql": (
        (_ONCE, POSTGRESQL_PREPARATION),
        (_CREATION, POSTGRESQL_CREATION),
        (_REVOCATION, POSTGRESQL_REVOCATION),
        ("creation_statements of a probe role (`apply` writes it)", POSTGRESQL_PROBE),
        ("username_template of a connection (`apply` writes it)", _TEMPLATE),
    ),
    "mariadb": (
        (_ONCE, MARIADB_PREPARATION),
        (_CREATION, MARIADB_CREATION),
        (_REVOCATION, MARIADB_REVOCATION),
        ("username_template of a connection: user names of MariaDB have 80 bytes", _TEMPLATE),
    ),
    "mysql": (
        (_ONCE, MYSQL_PREPARATION),
        (_CREATION, MARIADB_CREATION),
        (_REVOCATION, MYSQL_REVOCATION),
    ),
}


@click.command()
@click.argument("database", type=click.Choice(sorted(_STATEMENTS)))
def statements(database: str) -> None:
    """Print the recommended statements for a database; our tests run all but MySQL's."""
    for title, text in _STATEMENTS[database]:
        click.echo(f"-- {title}\n{text}")
