"""
What MySQL or MariaDB needs so that a task's account ends with its task: the texts, and their lints.

The statements for MariaDB were run on 10.11 by OpenBao (tests/vault/test_mariadb.py); those for
MySQL differ where it has no KILL USER. Nothing here talks to a database.

Each statement commits by itself, so what has been locked stays locked, whatever fails after it. An
account cannot be kept by what it owns, because nothing is owned by accounts there; but there is no
VALID UNTIL either: while Vault cannot reach the database, an account works on.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

MARIADB_PREPARATION: Final = """\
-- Once, by an administrator. CREATE USER lets Vault's account change every other account as well,
-- the administrators' included: let Vault alone know its password (database/rotate-root/NAME).
CREATE USER vault@'%' IDENTIFIED BY 'change-me';
GRANT CREATE USER, CONNECTION ADMIN ON *.* TO vault@'%';
GRANT SELECT ON orders.* TO vault@'%' WITH GRANT OPTION;
"""

MARIADB_CREATION: Final = """\
CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}';
GRANT SELECT ON orders.* TO '{{name}}'@'%';
"""

# In this order, and why:
# 1. no new login from here on, whatever becomes of the rest;
# 2. end what is open: an open session keeps what it was granted, also without its account;
# 3. drop; and 4. end what was logging in at the moment of 1.
MARIADB_REVOCATION: Final = """\
ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK;
KILL USER '{{name}}'@'%';
DROP USER IF EXISTS '{{name}}'@'%';
KILL USER '{{name}}'@'%';
"""

# MySQL has no KILL USER, and KILL takes a number: a procedure that the administrator makes once.
MYSQL_PREPARATION: Final = """\
-- Once, by an administrator. On MySQL 8, accounts with SYSTEM_USER are out of Vault's reach.
CREATE USER vault@'%' IDENTIFIED BY 'change-me';
GRANT CREATE USER ON *.* TO vault@'%';
GRANT SELECT ON orders.* TO vault@'%' WITH GRANT OPTION;
CREATE DATABASE taskmint;
DELIMITER $$
CREATE PROCEDURE taskmint.end_sessions(IN account VARCHAR(32))
SQL SECURITY DEFINER
BEGIN
  DECLARE done INT DEFAULT 0;
  DECLARE session BIGINT UNSIGNED;
  DECLARE sessions CURSOR FOR
    SELECT id FROM information_schema.processlist WHERE user = account;
  DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = 1;
  DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;  -- it has ended by itself
  OPEN sessions;
  ending: LOOP
    FETCH sessions INTO session;
    IF done THEN LEAVE ending; END IF;
    KILL session;
  END LOOP;
  CLOSE sessions;
END$$
DELIMITER ;
GRANT EXECUTE ON PROCEDURE taskmint.end_sessions TO vault@'%';
"""

MYSQL_REVOCATION: Final = """\
ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK;
CALL taskmint.end_sessions('{{name}}');
DROP USER IF EXISTS '{{name}}'@'%';
CALL taskmint.end_sessions('{{name}}');
"""

_CREATION_MUST_NOT: Final = (
    (r"\bGRANT\s+ALL\b", "grants ALL, and with it rights that outlive the account"),
    (r"\bWITH\s+(?:ADMIN|GRANT)\s+OPTION\b", "lets the task hand on rights: {}"),
    (
        r"\b(?:SUPER|CREATE USER|FILE|SHUTDOWN|SYSTEM_USER|CONNECTION ADMIN)\b(?=[^;]*\bON\b)",
        "gives {}",
    ),
    (
        r"\b(?:EVENT|TRIGGER|CREATE (?:ROUTINE|VIEW))\b(?=[^;]*\bON\b)",
        "lets the task leave behind what runs as it: {}",
    ),
)
_REVOCATION_NEEDS: Final = (
    (r"\bACCOUNT\s+LOCK\b", "never locks the account: while DROP USER fails, it works on"),
    (r"\b(?:KILL\s+(?:HARD\s+|CONNECTION\s+)*USER|CALL)\b", "ends no open session"),
    (r"\bDROP\s+USER\b", "leaves the account"),
    (r"\bIF\s+EXISTS\b", "fails when the account is already gone"),
)
_LOCK_FIRST: Final = re.compile(r"\bDROP\s+USER\b.*\bACCOUNT\s+LOCK\b", re.IGNORECASE | re.DOTALL)


def lint_mysql_creation(statements: Sequence[str]) -> Iterator[str]:
    """Name what is wrong with the creation statements of a MySQL or MariaDB role."""
    text = " ".join(" ".join(statements).split())
    for pattern, problem in _CREATION_MUST_NOT:
        if match := re.search(pattern, text, re.IGNORECASE):
            yield f"its creation {problem.format(match[0])}"


def lint_mysql_revocation(statements: Sequence[str]) -> Iterator[str]:
    """Name what is wrong with the revocation statements of a MySQL or MariaDB role."""
    text = "\n".join(statements)
    if not text.strip():
        yield "it has no revocation statements, and Vault's own end no open session"
        return
    for pattern, problem in _REVOCATION_NEEDS:
        if not re.search(pattern, text, re.IGNORECASE):
            yield f"its revocation {problem}"
    if _LOCK_FIRST.search(text):
        yield "its revocation locks the account only after it is dropped"
