"""
What a database needs so that a task's account ends with its task: the texts, and their lints.

Each statement was run on PostgreSQL 18 by OpenBao as an account that is no superuser, against
tasks that defend themselves (tests/vault/test_statements.py). Nothing here talks to a database.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

# A token's display name reaches a database plugin as `token-<name>`; task tokens are named
# `taskmint-<node>-<ulid>`, at most 56 bytes (model/task_id.py). A dash and six characters make
# 63, all that PostgreSQL keeps. Accounts of other tokens keep the plugin's own default name.
USERNAME_TEMPLATE: Final = (
    '{{ if eq (printf "%.15s" .DisplayName) "token-taskmint-" }}'
    '{{ .DisplayName | replace "token-" "" }}-{{ random 6 | lowercase }}'
    "{{ else }}"
    '{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8)'
    " (random 20) (unix_time) | truncate 63 }}"
    "{{ end }}"
)

PROBE_ANSWER: Final = re.compile(r"taskmint-probe sessions=([0-9]{1,9}) roles=([0-9]{1,9})\b")

POSTGRESQL_PREPARATION: Final = """\
-- Once per database, by its owner: what PUBLIC may make is what a task could leave behind.
REVOKE TEMPORARY ON DATABASE orders FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
-- Once per cluster, by a superuser: Vault's account ends sessions and owns what its roles own.
ALTER ROLE vault CREATEROLE;
ALTER ROLE vault SET createrole_self_grant = 'set, inherit';
GRANT pg_signal_backend TO vault;
-- Once per group of rights: the grants hang on a role without login, which Vault hands on.
CREATE ROLE orders_ro NOLOGIN;
GRANT CONNECT ON DATABASE orders TO orders_ro;
GRANT SELECT ON orders TO orders_ro;
GRANT orders_ro TO vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
"""

POSTGRESQL_CREATION: Final = """\
CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT orders_ro TO "{{name}}";
"""

# One transaction, whose commit answers 204. In this order, and why:
# 1. a second revocation of the same account finds nothing and succeeds;
# 2. end the sessions, because one may hold a lock on its own row in pg_authid, and disable the
#    login; again when a new session slipped in between, and only when that never works, fail;
# 3. from here nothing may raise, or the login would come back: take the memberships, end what
#    slipped in, and drop what is owned, then the role;
# 4. what cannot be dropped stays without login, for the probe to count.
POSTGRESQL_REVOCATION: Final = """\
DO $taskmint$
DECLARE
  attempts int := 0;
  held record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{{name}}') THEN
    RETURN;
  END IF;
  PERFORM pg_catalog.set_config('lock_timeout', '500ms', true);
  LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid)
      FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}';
    BEGIN
      ALTER ROLE "{{name}}" NOLOGIN PASSWORD NULL;
      EXIT;
    EXCEPTION WHEN OTHERS THEN
      attempts := attempts + 1;
      IF attempts >= 20 THEN
        RAISE;
      END IF;
    END;
  END LOOP;
  BEGIN
    FOR held IN
      SELECT granted.rolname FROM pg_catalog.pg_auth_members
        JOIN pg_catalog.pg_roles granted ON granted.oid = roleid
        JOIN pg_catalog.pg_roles task ON task.oid = member
      WHERE task.rolname = '{{name}}'
    LOOP
      EXECUTE pg_catalog.format('REVOKE %I FROM "{{name}}"', held.rolname);
    END LOOP;
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  BEGIN
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid, 1000)
      FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}';
    DROP OWNED BY "{{name}}";
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  BEGIN
    DROP ROLE "{{name}}";
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
END
$taskmint$
"""

# Makes no account: it always raises, and the text of the error carries the counts. An account that
# cannot log in was revoked; one that can belongs to a later revision of the same task. A session
# whose account is gone has no name any more (it began before the revocation was committed): it is
# counted and ended whoever's it was, since nobody can have a right to it.
POSTGRESQL_PROBE: Final = """\
DO $taskmint$
DECLARE
  prefix constant text := pg_catalog.left('{{name}}', -6);
  sessions bigint;
  roles bigint;
BEGIN
  SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(activity.pid)) INTO sessions
    FROM pg_catalog.pg_stat_activity activity
    LEFT JOIN pg_catalog.pg_roles role ON role.oid = activity.usesysid
    WHERE activity.usesysid IS NOT NULL AND (
      role.oid IS NULL
      OR (NOT role.rolcanlogin AND pg_catalog.starts_with(role.rolname, prefix)));
  SELECT pg_catalog.count(*) INTO roles FROM pg_catalog.pg_roles
    WHERE NOT rolcanlogin AND pg_catalog.starts_with(rolname, prefix);
  RAISE EXCEPTION 'taskmint-probe sessions=% roles=%', sessions, roles;
END
$taskmint$
"""

_EXPIRES: Final = r"VALID\s+UNTIL\s+'\{\{expiration\}\}'"
_CREATION_NEEDS: Final = ((_EXPIRES, "sets no VALID UNTIL '{{expiration}}' (P6)"),)
_CREATION_MUST_NOT: Final = (
    (r"(?<!NO)\b(?:SUPERUSER|CREATEROLE|CREATEDB|REPLICATION|BYPASSRLS)\b", "gives {}"),
    (
        r"\bGRANT\s+(?:\w+\s*(?:\([^)]*\)\s*)?,\s*)*(?:CREATE|TEMP|TEMPORARY)\b",
        "lets the task own things: {}",
    ),
    (r"\bGRANT\s+ALL\b", "grants ALL, and with it the right to own things"),
    (r"\bWITH\s+(?:ADMIN|GRANT)\b", "lets the task hand on rights: {}"),
    (r"\b(?:OWNER\s+TO|AUTHORIZATION)\b", "makes the task an owner: {}"),
    (r"\blo_(?:creat|create|from_bytea|import)\b", "lets the task own large objects: {}"),
    (
        r"\bpg_(?:execute_server_program|(?:read|write)_server_files|signal_backend|maintain)\b",
        "gives {}, which reaches beyond the database's tables",
    ),
)
_REVOCATION_NEEDS: Final = (
    (r"\bNOLOGIN\b", "never disables the login: while DROP ROLE fails, the account works on"),
    (r"\bpg_terminate_backend\b", "ends no open session"),
    (r"\bDROP\s+OWNED\b", "drops nothing that the task owns: one object keeps the account"),
    (r"\bEXCEPTION\b", "lets a failing DROP ROLE roll the disabled login back"),
    (r"\bIF\s+(?:NOT\s+)?EXISTS\b", "fails when the account is already gone"),
)


def expires_by_itself(creation: Iterable[str]) -> bool:
    """Say whether a role's accounts are refused at their lease's end, whatever Vault does then."""
    return any(re.search(_EXPIRES, statement, re.IGNORECASE) for statement in creation)


def lint_creation(statements: Sequence[str]) -> Iterator[str]:
    """Name what is wrong with a PostgreSQL role's creation statements."""
    text = "\n".join(statements)
    for pattern, problem in _CREATION_NEEDS:
        if not re.search(pattern, text, re.IGNORECASE):
            yield f"its creation {problem}"
    for pattern, problem in _CREATION_MUST_NOT:
        if match := re.search(pattern, text, re.IGNORECASE):
            yield f"its creation {problem.format(' '.join(match[0].split()))}"


def lint_revocation(statements: Sequence[str]) -> Iterator[str]:
    """Name what is wrong with a PostgreSQL role's revocation statements."""
    text = "\n".join(statements)
    if not text.strip():
        yield "it has no revocation statements, and Vault's own only try DROP ROLE"
        return
    for pattern, problem in _REVOCATION_NEEDS:
        if not re.search(pattern, text, re.IGNORECASE):
            yield f"its revocation {problem}"
