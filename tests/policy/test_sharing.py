"""A Vault role has one default_ttl: definitions that share one agree on the dead-man interval."""

import pytest

from policy.asking import findings, load


def policy(*tasks: tuple[str, str, str]) -> str:
    """A policy of definitions: name, dead-man interval, path below mount db."""
    text = "version: 1\ntasks:\n"
    for name, dead_man, path in tasks:
        text += (
            f"  {name}:\n    owner: o\n    class: ci\n    dead_man: {dead_man}\n"
            f"    who: ['spiffe://a.b/{{job}}']\n    ends: {{bind: [peer]}}\n"
            "    parameters: {n: {type: segment}, e: {enum: [x, y]}}\n"
            f"    scope: {{w: {{secret: {{mount: db, path: '{path}'}}}}}}\n"
        )
    return text


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("creds/x", "creds/x"),
        ("creds/{e}", "creds/y"),
        ("creds/x", "creds/{n}"),
        ("creds/{n}", "creds/x"),
        ("creds/{job}", "creds/{n}"),
        ("{n}/x", "creds/{n}"),
        ("a-{n}/b/{n}", "c/{n}/{job}"),
    ],
)
def test_a_shared_role_with_two_intervals_is_refused(first: str, second: str) -> None:
    """Whether the paths are equal, enumerated or may only meet."""
    found = findings(policy(("a", "20s", first), ("b", "30s", second)))

    assert len(found) == 1
    assert ".scope.w" in found[0]
    assert "a Vault role has one default_ttl" in found[0]
    assert {"20s", "30s"} <= set(found[0].replace(";", "").replace(",", "").split())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("creds/x", "creds/y"),
        ("creds/x", "creds/x/y"),
        ("creds/{e}", "creds/z"),
        ("creds/{n}", "roles/{n}"),
        ("creds/{n}", "creds/{n}/x"),
        ("creds/{n}/x", "creds/{n}"),
        ("{n}/x", "creds/y"),
    ],
)
def test_different_roles_may_differ(first: str, second: str) -> None:
    """Paths that can never be equal."""
    load(policy(("a", "20s", first), ("b", "30s", second)))


def test_equal_intervals_may_share() -> None:
    """Any number of definitions, any overlap."""
    load(
        policy(
            *(
                (name, "20s", path)
                for name, path in zip("abc", ("{n}/x", "c/x", "{e}/{n}"), strict=True)
            )
        )
    )


def test_a_difference_elsewhere_is_none_here() -> None:
    """Two that agree share a role, whatever a third has beside it."""
    load(policy(("a", "20s", "creds/{n}"), ("b", "20s", "creds/x"), ("c", "30s", "roles/{n}")))


@pytest.mark.parametrize(
    "entitlement",
    [
        "secret: {mount: kv, path: data/app, revocable: false}",
        "ssh: {mount: ssh, role: otp, operation: otp, ip: 10.0.0.1}",
        "pki: {mount: pki, role: web, common_name: x, ttl: 10m, proof: crl}",
    ],
)
def test_only_leases_of_a_role_have_its_default_ttl(entitlement: str) -> None:
    """What has no lease, or a TTL that is asked for, may be shared with any intervals."""
    text = policy(("a", "20s", "x"), ("b", "30s", "x"))
    load(text.replace("secret: {mount: db, path: 'x'}", entitlement))


def test_tokens_have_roles_of_their_own() -> None:
    """A token for the caller is made through its definition's own role: nothing is shared."""
    text = policy(("a", "20s", "x"), ("b", "30s", "y")).replace(
        "secret: {mount: db, path: 'x'}", "token: {policy: p}"
    )

    load(text.replace("secret: {mount: db, path: 'y'}", "token: {policy: p}"))
