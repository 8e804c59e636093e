"""The lints of a database role's statements: what keeps an account, and what gives too much."""

import pytest

from taskmint.policy.database import (
    POSTGRESQL_CREATION,
    POSTGRESQL_REVOCATION,
    expires_by_itself,
    lint_creation,
    lint_revocation,
)
from taskmint.policy.mysql import MARIADB_CREATION


def test_the_recommended_statements_pass_their_lints() -> None:
    """What we print is what we ask for."""
    assert list(lint_creation([POSTGRESQL_CREATION])) == []
    assert list(lint_revocation([POSTGRESQL_REVOCATION])) == []
    assert list(lint_creation([POSTGRESQL_CREATION.lower()])) == []
    assert list(lint_revocation([POSTGRESQL_REVOCATION.lower()])) == []


@pytest.mark.parametrize(
    ("statements", "expires"),
    [
        ([POSTGRESQL_CREATION], True),
        (["GRANT x TO y", POSTGRESQL_CREATION.lower()], True),
        (["CREATE ROLE x VALID\n  UNTIL '{{expiration}}'"], True),
        (["CREATE ROLE x VALID", "UNTIL '{{expiration}}'"], False),
        (["CREATE ROLE x VALID UNTIL 'infinity'"], False),
        ([MARIADB_CREATION], False),
        ([], False),
    ],
)
def test_an_account_ends_by_itself_where_a_statement_says_when(
    statements: list[str], *, expires: bool
) -> None:
    """In one statement, whatever its letters and its lines."""
    assert expires_by_itself(statements) is expires


@pytest.mark.parametrize("statements", [[], [""], ["  ", "\n"]])
def test_vaults_own_revocation_is_named(statements: list[str]) -> None:
    """No statements are not harmless ones."""
    assert list(lint_revocation(statements)) == [
        "it has no revocation statements, and Vault's own only try DROP ROLE"
    ]


def test_a_bare_drop_role_is_named_with_all_that_it_lacks() -> None:
    """Each of the five is told in its own words."""
    assert list(lint_revocation(['DROP ROLE "{{name}}"'])) == [
        "its revocation never disables the login: while DROP ROLE fails, the account works on",
        "its revocation ends no open session",
        "its revocation drops nothing that the task owns: one object keeps the account",
        "its revocation lets a failing DROP ROLE roll the disabled login back",
        "its revocation fails when the account is already gone",
    ]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ('CREATE ROLE "{{name}}" SUPERUSER', "gives SUPERUSER"),
        ('create role "{{name}}" createdb', "gives createdb"),
        ('GRANT CREATE ON SCHEMA public TO "{{name}}"', "lets the task own things: GRANT CREATE"),
        (
            'GRANT SELECT,\n  TEMPORARY ON DATABASE orders TO "{{name}}"',
            "lets the task own things: GRANT SELECT, TEMPORARY",
        ),
        (
            'GRANT ALL ON orders TO "{{name}}"',
            "grants ALL, and with it the right to own things",
        ),
        (
            'GRANT orders_ro TO "{{name}}" WITH ADMIN OPTION',
            "lets the task hand on rights: WITH ADMIN",
        ),
        ('ALTER TABLE orders OWNER TO "{{name}}"', "makes the task an owner: OWNER TO"),
        ('CREATE SCHEMA AUTHORIZATION "{{name}}"', "makes the task an owner: AUTHORIZATION"),
        (
            'GRANT EXECUTE ON FUNCTION lo_create(oid) TO "{{name}}"',
            "lets the task own large objects: lo_create",
        ),
        (
            'GRANT pg_write_server_files TO "{{name}}"',
            "gives pg_write_server_files, which reaches beyond the database's tables",
        ),
    ],
)
def test_what_gives_too_much_is_named(statement: str, problem: str) -> None:
    """Wherever it stands, however it is written, and nothing besides."""
    assert list(lint_creation([POSTGRESQL_CREATION, statement])) == [f"its creation {problem}"]
    assert list(lint_creation([statement, POSTGRESQL_CREATION])) == [f"its creation {problem}"]


def test_an_account_without_an_end_is_named() -> None:
    """P6: the database ends the account when nobody else does."""
    assert list(lint_creation([""])) == ["its creation sets no VALID UNTIL '{{expiration}}' (P6)"]


def test_a_right_that_spans_two_statements_is_named() -> None:
    """Vault is given a list; how the text was cut into it hides nothing."""
    ends = "CREATE ROLE x VALID UNTIL '{{expiration}}'"
    assert list(lint_creation([f"{ends} WITH", "GRANT"])) == [
        "its creation lets the task hand on rights: WITH GRANT"
    ]
