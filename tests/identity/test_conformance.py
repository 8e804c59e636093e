"""The standards' sections, one vector or more each (vectors.py)."""

import datetime as dt
import time

import pytest

from identity import vectors
from identity.signer import AUDIENCE, jwks
from identity.vectors import ChainVector, IdVector, TokenVector
from taskmint.errors import Unproven
from taskmint.identity.jwt_bundle import parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, verify_jwt_svid
from taskmint.identity.x509_svid import verify_x509_svid
from taskmint.model.spiffe import SpiffeId

JWT = {
    "example.org": parse_jwt_bundle(
        jwks([vectors.KEY, vectors.RSA_KEY, vectors.P384, vectors.P521])
    )
}
X509 = {
    "example.org": (vectors.ROOT.certificate,),
    "partner.test": (vectors.PARTNER.certificate,),
}


@pytest.mark.parametrize(
    "vector", vectors.SPIFFE_IDS, ids=lambda one: f"SPIFFE-ID {one.section}: {one.text[:40]!r}"
)
def test_spiffe_ids(vector: IdVector) -> None:
    """SPIFFE-ID: what is one, and its canonical form."""
    if vector.canonical is None:
        with pytest.raises(ValueError, match=r"SPIFFE ID|trust domain|path segment"):
            SpiffeId.parse(vector.text)
    else:
        assert str(SpiffeId.parse(vector.text)) == vector.canonical


@pytest.mark.parametrize(
    "vector", vectors.JWT_SVIDS, ids=lambda one: f"JWT-SVID {one.section}: {one.what}"
)
def test_jwt_svids(vector: TokenVector) -> None:
    """JWT-SVID: what is valid; where we are narrower, the vector says why."""
    now = int(time.time())
    token = vector.make(now)
    if vector.valid:
        assert verify_jwt_svid(token, JWT, JwtRules(AUDIENCE), now).spiffe_id.path
    else:
        with pytest.raises(Unproven):
            verify_jwt_svid(token, JWT, JwtRules(AUDIENCE), now)


@pytest.mark.parametrize(
    "vector", vectors.X509_SVIDS, ids=lambda one: f"X509-SVID {one.section}: {one.what}"
)
def test_x509_svids(vector: ChainVector) -> None:
    """X509-SVID: what is valid."""
    chain, now = vector.make().chain, dt.datetime.now(dt.UTC)
    if vector.valid:
        assert verify_x509_svid(chain, X509, now).spiffe_id.path
    else:
        with pytest.raises(Unproven):
            verify_x509_svid(chain, X509, now)
