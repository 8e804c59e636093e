"""Name constraints: what an authority may not name, nobody below it is believed to be."""

from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from identity.pki import Signed, constraints, root, uri
from taskmint.identity.name_constraints import within_constraints

ROOT: Final = root("example.org")
ID: Final = "spiffe://example.org/w"


def within(limits: x509.NameConstraints, **leaf: Any) -> bool:
    """Whether a leaf keeps to the constraints of the authority above it."""
    return kept(ROOT.intermediate("example.org", extra=limits).workload(ID, **leaf))


def kept(leaf: Signed) -> bool:
    """Whether the names of a chain keep to its constraints."""
    chain = (leaf.certificate, *(one.certificate for one in leaf.above))
    return within_constraints(chain)


@pytest.mark.parametrize(
    ("limits", "uris", "allowed"),
    [
        (constraints([uri("example.org")]), (ID,), True),
        (constraints([uri("EXAMPLE.org")]), (ID,), True),
        (constraints([uri("other.test"), uri("example.org")]), (ID,), True),
        (constraints([uri("ple.org")]), (ID,), False),
        (constraints([uri(".example.org")]), (ID,), False),
        (constraints([uri(".org")]), (ID,), True),
        (constraints([uri("")]), (ID,), False),
        (constraints([uri("example.org")], [uri("example.org")]), (ID,), False),
        (constraints((), [uri("other.test")]), (ID,), True),
        (constraints((), [uri(".org")]), (ID,), False),
        (constraints([uri("example.org")]), (ID, "spiffe://other.test/w"), False),
        (constraints([uri("example.org")]), ("urn:example.org",), False),
        (constraints((), [uri("other.test")]), ("urn:other.test",), False),
        (constraints([uri("example.org")]), ("https://user@example.org:443/",), True),
    ],
)
def test_uris(limits: x509.NameConstraints, uris: tuple[str, ...], allowed: object) -> None:
    """RFC 5280, 4.2.1.10: about the host; a leading dot means the domains below; every name."""
    assert within(limits, uris=uris) is allowed


@pytest.mark.parametrize(
    ("limit", "name", "allowed"),
    [
        ("example.org", "example.org", True),
        ("example.org", "a.b.example.org", True),
        ("example.org", "A.EXAMPLE.ORG", True),
        ("example.org", "badexample.org", False),
        (".example.org", "a.example.org", True),
        (".example.org", "example.org", False),
        ("", "example.org", True),
    ],
)
def test_dns_names(limit: str, name: str, allowed: object) -> None:
    """RFC 5280, 4.2.1.10: any labels may stand on the left."""
    assert within(constraints([x509.DNSName(limit)]), dns=(name,)) is allowed
    assert within(constraints((), [x509.DNSName(limit)]), dns=(name,)) is not allowed


def test_a_constraint_binds_its_own_kind_of_name_only() -> None:
    """An authority for DNS names alone may name workloads without any."""
    assert within(constraints([x509.DNSName("example.org")]))
    assert not within(constraints([x509.DNSName("example.org")]), dns=("other.test",))


ORGANISATION: Final = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIRE")])


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(constraints([x509.DirectoryName(ORGANISATION)]), id="subjects"),
        pytest.param(constraints((), [x509.DirectoryName(x509.Name([]))]), id="no subjects"),
    ],
)
def test_a_constraint_that_is_not_understood_is_not_kept(limits: x509.NameConstraints) -> None:
    """P12: our certificates have subjects, and nobody here compares them."""
    assert not within(limits)


def test_every_authority_constrains_everybody_below() -> None:
    """Two levels up, the root, and the names of authorities in between count as well."""
    limits = constraints([uri("ci.example.net")])
    assert not kept(
        ROOT.intermediate("ci.example.net", extra=limits)
        .intermediate("ci.example.net")
        .workload(ID)
    )
    assert not kept(root("example.org", extra=limits).workload(ID))
    above = ROOT.intermediate("example.org", extra=constraints([uri("example.org")]))
    assert not kept(above.intermediate("ci.example.net").workload(ID))
    assert kept(above.intermediate("example.org").workload(ID))


def test_constraints_of_a_leaf_constrain_nobody() -> None:
    """It signs nothing."""
    assert kept(ROOT.workload(ID, extra=constraints([uri("ci.example.net")])))
