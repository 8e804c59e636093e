-- The orders database of the embedded stack, run by psql as superuser, once, on a fresh cluster.
-- psql variable: vault_password.

-- What any login may do by default is where a task could leave something behind that keeps its
-- account from being dropped: a temporary table, an object of its own, a large object.
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;
CREATE DATABASE orders;
REVOKE ALL ON DATABASE orders FROM PUBLIC;

\connect orders

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
DO $$
DECLARE
  made regprocedure;
BEGIN
  FOR made IN
    SELECT oid FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND (proname LIKE 'lo\_%' OR proname IN ('loread', 'lowrite'))
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', made);
  END LOOP;
END
$$;

CREATE TABLE orders (
  id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  region text NOT NULL CHECK (region IN ('eu', 'us')),
  placed date NOT NULL,
  total  numeric(10, 2) NOT NULL
);
INSERT INTO orders (region, placed, total)
SELECT CASE WHEN n % 3 = 0 THEN 'us' ELSE 'eu' END, date '2026-01-01' + n, 10 + n * 1.25
FROM generate_series(1, 60) AS n;

-- Grants hang on roles that cannot log in, one per region, and rows are filtered by the server.
CREATE ROLE orders_ro_eu NOLOGIN;
CREATE ROLE orders_ro_us NOLOGIN;
GRANT CONNECT ON DATABASE orders TO orders_ro_eu, orders_ro_us;
GRANT SELECT ON orders TO orders_ro_eu, orders_ro_us;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY eu ON orders FOR SELECT TO orders_ro_eu USING (region = 'eu');
CREATE POLICY us ON orders FOR SELECT TO orders_ro_us USING (region = 'us');

-- Vault's account: no superuser. It makes roles, holds SET and INHERIT on each role that it makes
-- (DROP OWNED asks for that from PostgreSQL 16 on), ends their sessions, and hands on membership
-- in the two roles above without having it.
CREATE ROLE vault LOGIN CREATEROLE PASSWORD :'vault_password';
ALTER ROLE vault SET createrole_self_grant = 'set, inherit';
GRANT CONNECT ON DATABASE orders TO vault;
GRANT pg_signal_backend TO vault;
GRANT orders_ro_eu, orders_ro_us TO vault WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
