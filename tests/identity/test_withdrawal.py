"""Which authorities still stand: withdrawal ends what rests on them, and nothing else does."""

from collections.abc import Iterable
from typing import Final

import pytest
from spiffe._proto import workload_pb2

from identity.pki import Signed, der, root
from identity.signer import Authority, jwks
from taskmint.identity.jwt_bundle import jwt_authority
from taskmint.identity.trust import Trust, read_jwt_bundles, read_x509_context
from taskmint.identity.x509_context import x509_authority

K1: Final = Authority.ecdsa("k1")
K2: Final = Authority.ecdsa("k2")
R1: Final = root("example.org")
R2: Final = root("example.org")
OWN: Final = "spiffe://example.org/taskmint"


def jwt_said(bundles: dict[str, bytes]) -> Trust:
    """What is believed after a message of JWT bundles."""
    believed, said = read_jwt_bundles(workload_pb2.JWTBundlesResponse(bundles=bundles))
    return Trust(jwt=believed, jwt_said=said)


def x509_said(roots: Iterable[Signed], federated: dict[str, bytes]) -> Trust:
    """What is believed after a message of the X.509 context."""
    own = R1.workload(OWN)
    svid = workload_pb2.X509SVID(
        spiffe_id=OWN,
        x509_svid=own.chain[0],
        x509_svid_key=own.pkcs8,
        bundle=b"".join(der(one.certificate) for one in roots),
    )
    message = workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles=federated)
    believed, mine, said = read_x509_context(message)
    return Trust(x509=believed, own=mine, x509_said=said)


FIRST: Final = jwt_authority("example.org", "k1")
SECOND: Final = jwt_authority("example.org", "k2")
PARTNERS: Final = jwt_authority("partner.test", "k1")


def test_a_key_that_left_its_bundle_is_withdrawn() -> None:
    """And only that one: the others of the domain, and other domains', stand."""
    trust = jwt_said({"spiffe://example.org": jwks([K2]), "spiffe://partner.test": jwks([K1])})

    assert not trust.stands(FIRST)
    assert trust.stands(SECOND)
    assert trust.stands(PARTNERS)


def test_a_domain_that_is_not_federated_any_more_is_withdrawn() -> None:
    """A message is the whole truth of its stream."""
    trust = jwt_said({"spiffe://example.org": jwks([K1])})

    assert trust.stands(FIRST)
    assert not trust.stands(PARTNERS)


def test_a_root_that_left_its_bundle_is_withdrawn() -> None:
    """The same for X.509, our own domain and a partner's."""
    trust = x509_said([R2], {"spiffe://partner.test": der(R1.certificate)})

    assert not trust.stands(x509_authority("example.org", R1.certificate))
    assert trust.stands(x509_authority("example.org", R2.certificate))
    assert trust.stands(x509_authority("partner.test", R1.certificate))
    assert not trust.stands(x509_authority("partner.test", R2.certificate))


@pytest.mark.parametrize("name", ["spiffe://example.org", "example.org", "SPIFFE://EXAMPLE.ORG"])
def test_a_bundle_that_cannot_be_read_withdraws_nothing(name: str) -> None:
    """New proofs are refused; what runs is not ended by a typo of somebody else's."""
    trust = jwt_said({name: b"not a JWK set", "spiffe://partner.test": jwks([K1])})

    assert "example.org" not in trust.jwt
    assert trust.stands(FIRST)
    assert trust.stands(PARTNERS)


def test_what_nobody_spoke_of_stands() -> None:
    """An agent that is away, or that refuses us, says nothing about others."""
    trust = Trust()

    assert trust.stands(FIRST)
    assert trust.stands(x509_authority("example.org", R1.certificate))
    heard = jwt_said({"spiffe://partner.test": jwks([K1])})
    assert heard.stands(x509_authority("example.org", R1.certificate))
    assert heard.stands("")


def test_a_message_without_its_mandatory_field_withdraws_nothing() -> None:
    """Workload API, section 4.5: it is an error, so nobody is believed and nobody is ended."""
    jwt = jwt_said({})
    x509, own, said = read_x509_context(workload_pb2.X509SVIDResponse())

    assert (dict(jwt.jwt), jwt.jwt_said) == ({}, None)
    assert (dict(x509), own, said) == ({}, None, None)
    assert jwt.stands(FIRST)
