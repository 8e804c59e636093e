"""
The same inputs to py-spiffe and to us: every disagreement is listed here, with its reason.

py-spiffe's own types are what the Workload API's messages are made of elsewhere; where the two
disagree, one of them would be a way in or a way to be locked out, so each is looked at.
"""

import datetime as dt
import time
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from spiffe import JwtBundle, JwtSvid, TrustDomain, X509Svid
from spiffe import SpiffeId as TheirSpiffeId
from spiffe.errors import PySpiffeError

from identity import vectors
from identity.signer import AUDIENCE, jwks
from identity.vectors import ChainVector, IdVector, TokenVector
from taskmint.errors import Unproven
from taskmint.identity.jwt_bundle import parse_jwt_bundle
from taskmint.identity.jwt_svid import JwtRules, verify_jwt_svid
from taskmint.identity.x509_svid import verify_x509_svid
from taskmint.model.spiffe import SpiffeId

LINE_FEED: Final = "their regular expressions end in $, which matches before a final line feed"
LENGTH: Final = "they set no limit to the length; SPIFFE-ID, section 2.3, does"

JWKS: Final = jwks([vectors.KEY, vectors.RSA_KEY, vectors.P384, vectors.P521])
OURS: Final = {"example.org": parse_jwt_bundle(JWKS)}
THEIRS: Final = JwtBundle.parse(TrustDomain("example.org"), JWKS)

# Tokens on which we disagree: by section and name of the vector.
TOKENS: Final = {
    "2: a private header": "they ignore headers that MUST NOT be there",
    "2: jku": "they ignore headers that MUST NOT be there",
    "2: jwk": "they ignore headers that MUST NOT be there",
    "2: x5c": "they ignore headers that MUST NOT be there",
    "3.1: a sub with a line feed": LINE_FEED,
    "3.1: a trust domain as sub": "they accept a trust domain as a workload's identity",
    "3.2: two audiences": "we ask for exactly one, as section 7.2 strongly recommends",
    "3.3: expired seconds ago": "they have no leeway, we have 30 s; section 4 allows a little",
    "3.3: ten years": "they set no longest life; we set an hour",
    "4: RFC 7519, 4.1.4: exp as text": "they convert text to a number",
    "4: RFC 7519, 4.1.6: iat tomorrow": "they do not look at iat",
    "4: RFC 7519, 7.2: a duplicate claim": "they take the last of two claims of one name",
    "5.1: padding": "they decode base64 with padding",
}

# Leaf certificates that they parse without verifying a chain, and that we refuse.
LEAVES: Final = {
    "4.3: key usage not critical": "MUST be marked critical; they do not look",
    "4.4: not for clients": "they do not look at the extended key usage",
}


def ours_of(text: str) -> str | None:
    """Our canonical form, or None."""
    try:
        return str(SpiffeId.parse(text))
    except ValueError:
        return None


def theirs_of(text: str) -> str | None:
    """Their canonical form, or None."""
    try:
        return str(TheirSpiffeId(text))
    except PySpiffeError:
        return None


def explained(text: str) -> str | None:
    """Why we disagree about a text, if there is a known reason."""
    if text.endswith("\n"):
        return LINE_FEED
    if len(text) > 255:
        return LENGTH
    return None


@pytest.mark.parametrize("vector", vectors.SPIFFE_IDS, ids=lambda one: repr(one.text[:40]))
def test_spiffe_ids_of_the_standard(vector: IdVector) -> None:
    """On every vector we agree, or the reason is known and we are the narrower one."""
    ours, theirs = ours_of(vector.text), theirs_of(vector.text)

    assert ours == theirs or (ours is None and explained(vector.text) is not None)


@given(
    st.from_regex(r"(spiffe|SPIFFE|http)://[a-zA-Z0-9._:@%-]{0,12}(/[a-zA-Z0-9._%*-]{0,5}){0,4}")
    | st.text(max_size=40)
)
@example("spiffe://example.org/a\n")
@example("spiffe://example.org\n")
def test_spiffe_ids_of_any_kind(text: str) -> None:
    """So it is on any text."""
    ours, theirs = ours_of(text), theirs_of(text)

    assert ours == theirs or (ours is None and explained(text) is not None)


@pytest.mark.parametrize("vector", vectors.JWT_SVIDS, ids=lambda one: f"{one.section}: {one.what}")
def test_jwt_svids(vector: TokenVector) -> None:
    """On every token we agree, or the disagreement is listed; a KeyError of theirs is a no."""
    now = int(time.time())
    token = vector.make(now)
    try:
        ours = bool(verify_jwt_svid(token, OURS, JwtRules(AUDIENCE), now).spiffe_id.path)
    except Unproven:
        ours = False
    try:
        theirs = bool(JwtSvid.parse_and_validate(token, THEIRS, {AUDIENCE}).token)
    except (PySpiffeError, KeyError):
        theirs = False

    assert (ours != theirs) == (f"{vector.section}: {vector.what}" in TOKENS)


def their_view(vector: ChainVector) -> bool:
    """Whether they parse the chain and key as an X.509-SVID."""
    signed = vector.make()
    chain = b"".join(signed.chain[:-1]) or signed.chain[0]
    try:
        return bool(X509Svid.parse_raw(chain, signed.pkcs8).spiffe_id)
    except PySpiffeError:
        return False


# They verify no chain at all, so only vectors that the leaf itself decides can be compared.
OF_THE_CHAIN: Final = {"3.2", "4.1", "4.2", "5.1"}
OF_THE_LEAF: Final = [one for one in vectors.X509_SVIDS if one.section not in OF_THE_CHAIN]


@pytest.mark.parametrize("vector", OF_THE_LEAF, ids=lambda one: f"{one.section}: {one.what}")
def test_x509_svids(vector: ChainVector) -> None:
    """On every leaf we agree, or the disagreement is listed."""
    bundles: dict[str, Any] = {
        "example.org": (vectors.ROOT.certificate,),
        "partner.test": (vectors.PARTNER.certificate,),
    }
    try:
        ours = bool(
            verify_x509_svid(vector.make().chain, bundles, dt.datetime.now(dt.UTC)).evidence
        )
    except Unproven:
        ours = False

    name = f"{vector.section}: {vector.what}"
    assert (ours != their_view(vector)) == (name in LEAVES)


def test_every_listed_disagreement_is_a_vector() -> None:
    """A reason without its case explains nothing."""
    tokens = {f"{one.section}: {one.what}" for one in vectors.JWT_SVIDS}
    leaves = {f"{one.section}: {one.what}" for one in OF_THE_LEAF}

    assert TOKENS.keys() <= tokens
    assert LEAVES.keys() <= leaves
