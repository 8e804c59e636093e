"""Every kind of entitlement becomes the one request that mints it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from policy.asking import REPORT, asked, denied, findings, granted, load
from policy.keys import request, ssh_key
from taskmint.errors import Code
from taskmint.model.scope import Entitlement, EntitlementKind, KeyField, ProofLevel
from taskmint.policy.enumerate import enumerate_definitions
from taskmint.policy.plan_rules import engine_mounts, lease_mounts

SECRET = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'


def scope_of(text: str) -> str:
    """The report policy with another entitlement."""
    return REPORT.replace(SECRET, text)


def minted(text: str, key: str | None = None) -> Entitlement:
    """The entitlement that the nightly job gets for the EU, with a key of its own if it has one."""
    given = asked()
    if key is not None:
        given = replace(given, request=replace(given.request, public_keys={"warehouse": key}))
    (only,) = granted(load(scope_of(text)), given).entitlements
    return only


def test_what_has_no_lease_says_so() -> None:
    """A KV secret is no lease; a ceiling bounds what tells its own life."""
    made = minted("secret: {mount: kv, path: data/app, revocable: false, ceiling: 1h}")

    assert (made.revocable, made.ceiling) == (False, timedelta(hours=1))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("ceiling: 1h", "a lease has its own clocks"),
        ("revocable: false, proof: login", "login cannot be proven of it"),
    ],
)
def test_what_has_no_lease_promises_no_more(more: str, said: str) -> None:
    """Both ways of saying what cannot be."""
    (finding,) = findings(scope_of(f"secret: {{mount: kv, path: data/app, {more}}}"))
    assert said in finding


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secret: {mount: sys/policies, path: acl/x, method: POST, revocable: false}", "own"),
        ("secret: {mount: auth/token, path: create, method: POST, revocable: false}", "own"),
        ("secret: {mount: identity, path: entity, method: POST, revocable: false}", "own"),
        ("secret: {mount: cubbyhole, path: x, revocable: false}", "own"),
        ("secret: {mount: ns1, path: sys/policies/acl/x, method: POST, revocable: false}", "own"),
        ("secret: {mount: ns1/auth, path: token/create, method: POST, revocable: false}", "own"),
        ("database: {mount: sys, connection: c, creation: [a], revocation: [b]}", "own"),
        ("pki: {mount: sys, role: web, common_name: a, ttl: 10m}", "own"),
        ("ssh: {mount: auth/ssh, role: ops, operation: otp, ip: 10.0.0.1}", "own"),
        ("token: {paths: [{path: ns1/sys/policies/acl/x, capabilities: [update]}]}", "own"),
        ("token: {paths: [{path: '{region}/policies/acl/x', capabilities: [read]}]}", "no mount"),
        ("token: {policy: root}", "is not for a caller"),
        ("token: {policy: taskmint-daemon}", "is not for a caller"),
        ("token: {policy: taskmint-task-other}", "is not for a caller"),
    ],
)
def test_no_task_reaches_what_gives_rights(text: str, said: str) -> None:
    """P1: neither Vault's own paths, here or in a child namespace, nor the daemon's policies."""
    (finding,) = findings(scope_of(text))
    assert said in finding


@pytest.mark.parametrize(
    ("text", "parameters", "value"),
    [
        (
            "secret: {mount: child, path: '{e}/policies/acl/x', method: POST}",
            "{enum: [sys]}",
            "sys",
        ),
        ("secret: {mount: child, path: 's{e}s/policies/acl/x'}", "{enum: [y]}", "y"),
        ("secret: {mount: child, path: 'x/{e}/token/create'}", "{type: segment}", "auth"),
        ("secret: {mount: creds, path: '{e}'}", "{type: segment}", "identity"),
        (
            "token: {paths: [{path: 'a/{e}/x', capabilities: [read]}]}",
            "{type: segment}",
            "cubbyhole",
        ),
        (
            (
                "token: {paths: [{path: a/b, capabilities: [read]}, "
                "{path: 'c/{e}/x', capabilities: [read]}]}"
            ),
            "{type: segment}",
            "sys",
        ),
    ],
)
def test_no_value_makes_a_path_one_of_vaults_own(text: str, parameters: str, value: str) -> None:
    """P1: what may not be written out may not come by a placeholder either."""
    policy = load(scope_of(text).replace("{region: {enum: [eu, us]}}", f"{{e: {parameters}}}"))
    given = {"e": value}
    denial = denied(policy, asked(parameters=given), Code.PARAMETER_INVALID)

    assert denial.trace[-1] == "scope: a value would make a path one of Vault's own"


def test_behind_data_a_value_may_be_any_word() -> None:
    """A KV engine's own names mean nothing to Vault; nor does the last segment of a mount."""
    text = "secret: {mount: kv, path: 'data/{region}/x', revocable: false}"
    policy = load(scope_of(text).replace("{enum: [eu, us]}", "{type: segment}"))

    assert granted(policy, asked(parameters={"region": "sys"})).entitlements[0].path == "data/sys/x"


@pytest.mark.parametrize("path", ["data/team/auth", "data/sys/x", "metadata/identity"])
def test_a_secret_may_have_any_name(path: str) -> None:
    """Behind a KV engine's `data` and `metadata` no word means anything to Vault."""
    made = minted(f"secret: {{mount: kv, path: {path}, revocable: false}}")
    assert (made.mount, made.path) == ("kv", path)


def test_no_mount_of_what_has_no_lease_is_among_the_leases() -> None:
    """The daemon's right to revoke leases is no wider than it needs."""
    policy = load(scope_of("secret: {mount: kv, path: data/app, revocable: false}"))
    spanned = enumerate_definitions(policy)
    assert lease_mounts(spanned) == frozenset()
    assert engine_mounts(spanned) == {"kv"}


def test_a_certificate_has_a_ceiling_and_cannot_be_revoked() -> None:
    """Issued by a role of the mount; names from the identity."""
    made = minted(
        "pki: {mount: pki/int, role: web, common_name: '{job}.example.org', "
        "alt_names: ['{region}.example.org', x.example.org], ttl: 10m}"
    )

    assert made == Entitlement(
        name="warehouse",
        kind=EntitlementKind.PKI,
        mount="pki/int",
        path="issue/web",
        method="POST",
        body={
            "common_name": "nightly.example.org",
            "alt_names": "eu.example.org,x.example.org",
            "ttl": "10m",
        },
        revocable=False,
        ceiling=timedelta(minutes=10),
    )


def test_a_request_for_signing_goes_to_the_role_that_signs() -> None:
    """The caller's own key."""
    made = minted(
        "pki: {mount: pki, role: 'web-{region}', operation: sign, common_name: x, ttl: 10m}",
        request(),
    )

    assert made.path == "sign/web-eu"
    assert made.key_field is KeyField.CSR
    assert made.body["csr"] == request()


def test_a_certificate_with_proof_is_revocable() -> None:
    """By the lease that the role gives it; its list is looked at."""
    made = minted("pki: {mount: pki, role: web, common_name: x, ttl: 10m, proof: crl}")

    assert (made.revocable, made.proof) == (True, ProofLevel.CRL)


@pytest.mark.parametrize(("more", "ceiling"), [("", None), (", ttl: 10m", timedelta(minutes=10))])
def test_a_token_for_the_caller_lives_at_most_its_ttl(more: str, ceiling: timedelta | None) -> None:
    """What it may do is the policy's; without a TTL the task's own end bounds it."""
    made = minted(f"token: {{policy: reader{more}}}")

    assert (made.ceiling, made.revocable, made.proof) == (ceiling, True, ProofLevel.LEASE)


def test_a_signed_ssh_key_names_its_principals() -> None:
    """It lives at most its TTL, and cannot be revoked."""
    made = minted(
        "ssh: {mount: ssh, role: ops, operation: sign, principals: ['{job}', x], ttl: 5m}",
        ssh_key(),
    )

    assert (made.path, made.method) == ("sign/ops", "POST")
    assert made.body == {"valid_principals": "nightly,x", "ttl": "5m", "public_key": ssh_key()}
    assert (made.revocable, made.ceiling) == (False, timedelta(minutes=5))


def test_an_ssh_otp_has_a_lease() -> None:
    """For one address, and for one user if that is said."""
    made = minted("ssh: {mount: ssh, role: otp, operation: otp, ip: 10.0.0.1, username: '{job}'}")

    assert (made.path, made.method) == ("creds/otp", "POST")
    assert made.body == {"ip": "10.0.0.1", "username": "nightly"}
    assert (made.revocable, made.ceiling) == (True, None)


DATABASE = (
    "database: {mount: database, connection: orders-tasks, "
    "creation: ['CREATE ROLE \"{{name}}\" LOGIN PASSWORD ''{{password}}'' VALID UNTIL "
    "''{{expiration}}''', 'GRANT SELECT ON orders_{region} TO \"{{name}}\"'], "
    "revocation: ['DROP ROLE \"{{username}}\"']}"
)


def test_an_ephemeral_database_role_carries_its_statements() -> None:
    """Vault's placeholders stay; an enum is put in; proof is login unless said otherwise."""
    made = minted(DATABASE)

    assert (made.kind, made.method, made.path, made.proof) == (
        EntitlementKind.DATABASE,
        "GET",
        "creds/taskmint-db-report.warehouse.eu",
        ProofLevel.LOGIN,
    )
    assert made.body == {
        "db_name": "orders-tasks",
        "creation_statements": [
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'",
            'GRANT SELECT ON orders_eu TO "{{name}}"',
        ],
        "revocation_statements": ['DROP ROLE "{{username}}"'],
        "default_ttl": "60s",
        "max_ttl": "1860s",
    }


def test_statements_are_enumerated_exactly() -> None:
    """Trap 7: what the ACL pins are whole statements, so nothing in them is a wildcard."""
    (report,) = enumerate_definitions(load(scope_of(DATABASE)))
    statements = [combination.entitlements[0].body for combination in report.combinations]

    assert len(statements) == 2
    assert "*" not in repr(statements)
    assert "+" not in repr(statements)


# The server would take `*` for any field, so that the plan would hold less than was written.
FIELD = "will not do; write the field as Vault names it: letters, digits, dots, dashes, underscores"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            DATABASE.replace("{region}", "{job}"),
            "database: {job} is not an enum, and only enums may stand in a statement; declare job",
        ),
        (
            DATABASE.replace("{region}", "{unknown}"),
            "database: {unknown} is neither a parameter nor captured",
        ),
        (
            DATABASE.replace("{{name}}", "{{identity.entity.id}}", 1),
            'database.creation[0]: "CREATE ROLE \\"{{identity.entity.id}}\\" LOGIN PASSWORD ',
        ),
        (DATABASE.replace("{{username}}", "{{{name}}}"), "database.revocation[0]: "),
        (DATABASE.replace("connection: orders-tasks", "connection: a b"), "database.connection: "),
        ("database: {mount: d, connection: c, creation: [], revocation: [x]}", "database.creation"),
        ("pki: {mount: p, role: a/b, common_name: x, ttl: 1m}", 'pki.role: "a/b" is more than one'),
        ("pki: {mount: p, role: .., common_name: x, ttl: 1m}", "pki.role: "),
        ("pki: {mount: p, role: r, common_name: '{', ttl: 1m}", "pki.common_name: "),
        ("pki: {mount: p, role: r, common_name: x, ttl: 0s}", "pki.ttl: must be longer than noth"),
        ("pki: {mount: p, role: r, common_name: x}", "pki.ttl: is missing"),
        (
            "pki: {mount: p, role: r, common_name: '*.x.org', ttl: 1m}",
            'pki.common_name: "*.x.org" begins or ends with *, which is a wildcard in an ACL',
        ),
        ("ssh: {mount: s, role: r, operation: sign, ttl: 1m}", "ssh: signing takes principals and"),
        (
            "ssh: {mount: s, role: r, operation: sign, principals: [a], ttl: 1m, ip: x}",
            "ssh: signing takes principals and ttl",
        ),
        ("ssh: {mount: s, role: r, operation: otp}", "ssh: an otp takes ip"),
        ("ssh: {mount: s, role: r, operation: otp, ip: x, ttl: 1m}", "ssh: an otp takes ip"),
        ("ssh: {mount: s, role: r, operation: cp, ip: x}", "ssh.operation: is not one of the kno"),
        (
            "token: {policy: Root}",
            'token.policy: "Root" will not do; write the name as Vault keeps',
        ),
        ("token: {policies: [a]}", "token.policies: is not a known key; did you mean policy?"),
        ("secret: {mount: m, path: x, method: PUT}", "secret.method: is not one of the known wor"),
        (
            "secret: {mount: m, path: x, method: POST, body: {'*': a}}",
            f'secret.body."*": "*" {FIELD}',
        ),
        (
            "secret: {mount: m, path: x, method: POST, body: {'${x': a}}",
            f'secret.body."${{x": "${{x" {FIELD}',
        ),
        (
            "secret: {mount: m, path: x, method: POST, body: {a: 'x*'}}",
            'secret.body.a: "x*" begins or ends with *, which is a wildcard in an ACL',
        ),
    ],
)
def test_entitlements_that_cannot_be_minted_are_found(text: str, expected: str) -> None:
    """At the field, with what to write."""
    found = findings(scope_of(text))

    assert any(f"tasks.report.scope.warehouse.{expected}" in finding for finding in found), found
