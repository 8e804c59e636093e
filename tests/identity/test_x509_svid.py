"""Verification of X.509-SVIDs: what is believed, and every way in which a chain is not."""

import datetime as dt
from functools import partial
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from identity.pki import WORKLOAD, Signed, Terms, der, root, usage
from taskmint.errors import Code, Unproven
from taskmint.identity.x509_context import X509Bundles
from taskmint.identity.x509_svid import X509Svid, verify_x509_svid
from taskmint.model.spiffe import SpiffeId

ID: Final = "spiffe://example.org/ns/orders/sa/report"
ROOT: Final = root("example.org")
NEXT: Final = root("example.org")  # after a rotation both stand in the bundle
PARTNER: Final = root("partner.test")
STRANGER: Final = root("example.org")
BUNDLES: Final[X509Bundles] = {
    "example.org": (ROOT.certificate, NEXT.certificate),
    "partner.test": (PARTNER.certificate,),
}
NOW: Final = dt.datetime.now(dt.UTC)


def verify(chain: tuple[bytes, ...], now: dt.datetime = NOW) -> X509Svid:
    """Verify against the bundles of these tests."""
    return verify_x509_svid(chain, BUNDLES, now)


def refused(chain: tuple[bytes, ...], now: dt.datetime = NOW) -> Code:
    """Return the code with which a chain is refused; its text is ours."""
    with pytest.raises(Unproven) as raised:
        verify(chain, now)
    assert raised.value.detail.endswith(".")
    assert raised.value.__cause__ is None
    return raised.value.code


def test_a_good_chain_says_who_and_until_when() -> None:
    """The ID, the earliest expiry of the chain, the root and the leaf's digest come out."""
    leaf = ROOT.workload(ID)

    svid = verify(leaf.chain)

    assert svid.spiffe_id == SpiffeId.parse(ID)
    assert svid.expires_at == leaf.certificate.not_valid_after_utc
    assert svid.authority.startswith("x509:example.org#")
    assert len(svid.evidence) == 64


def through(intermediate: Signed, **changes: Any) -> tuple[bytes, ...]:
    """A workload's chain through an intermediate."""
    return intermediate.workload(ID, **changes).chain


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(NEXT.workload(ID).chain, id="another authority of the domain"),
        pytest.param(through(ROOT.intermediate("example.org")), id="an intermediate"),
        pytest.param(
            through(ROOT.intermediate("example.org").intermediate("example.org")), id="two"
        ),
        pytest.param(
            through(ROOT.intermediate("example.org", path_length=0)), id="a path length that fits"
        ),
        pytest.param(ROOT.workload(ID, dns=("orders.test",)).chain, id="a DNS name besides"),
        pytest.param(
            through(ROOT.intermediate("x", uris=("https://ca.test/",))), id="an authority's URL"
        ),
        pytest.param(through(ROOT.intermediate("x", uris=())), id="an authority without a name"),
        pytest.param(ROOT.workload(ID, purposes=None).chain, id="no extended key usage"),
        pytest.param(ROOT.workload(ID, authority=None).chain, id="no basic constraints"),
        pytest.param(ROOT.workload(ID, key=rsa.generate_private_key(65537, 2048)).chain, id="RSA"),
        pytest.param(PARTNER.workload("spiffe://partner.test/w").chain, id="a partner for itself"),
    ],
)
def test_what_the_standard_allows_is_believed(chain: tuple[bytes, ...]) -> None:
    """Chains as SPIRE, with and without intermediates, issues them."""
    assert verify(chain).spiffe_id.path


def test_an_authority_that_is_no_root_may_be_the_anchor() -> None:
    """X509-SVID, section 5.1: a bundle may hold what its owner signs with, self-signed or not."""
    middle = ROOT.intermediate("example.org")
    chain = middle.workload(ID).chain[:-1]
    bundles = {"example.org": (middle.certificate,)}

    assert verify_x509_svid(chain, bundles, NOW).spiffe_id == SpiffeId.parse(ID)


def test_every_certificate_of_the_chain_must_be_valid() -> None:
    """The SVID is valid no longer than the first authority above it that expires."""
    middle = ROOT.intermediate("example.org", ends=dt.timedelta(minutes=5))
    leaf = middle.workload(ID)

    ends = middle.certificate.not_valid_after_utc
    assert verify(leaf.chain).expires_at == ends
    assert refused(leaf.chain, ends + dt.timedelta(minutes=1)) is Code.CREDENTIAL_EXPIRED


def swapped(leaf: Signed, authority: Signed) -> tuple[bytes, ...]:
    """A chain whose root is replaced."""
    return (*leaf.chain[:-1], der(authority.certificate))


def grandchild_of_a_workload() -> tuple[bytes, ...]:
    """A workload that signs for another."""
    return ROOT.workload(ID).workload(ID).chain


SMALL: Final = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused
SAN = partial(Terms, key_usage=WORKLOAD)
INVALID: Final = {
    "row 19: CA true": ROOT.workload(ID, authority=True).chain,
    "row 19: keyCertSign": ROOT.workload(
        ID, key_usage=usage("digital_signature", "key_cert_sign")
    ).chain,
    "row 19: cRLSign": ROOT.workload(ID, key_usage=usage("digital_signature", "crl_sign")).chain,
    "row 20: no name at all": ROOT.issue(SAN()).chain,
    "row 20: no URI": ROOT.issue(SAN(dns=("orders.test",))).chain,
    "row 20: two URIs": ROOT.issue(SAN(uris=(ID, "spiffe://example.org/admin"))).chain,
    "row 20: the same URI twice": ROOT.issue(SAN(uris=(ID, ID))).chain,
    "row 20: another scheme": ROOT.issue(SAN(uris=("https://example.org/a",))).chain,
    "row 20: no path": ROOT.issue(SAN(uris=("spiffe://example.org",))).chain,
    "row 20: two dots": ROOT.issue(SAN(uris=("spiffe://example.org/a/../b",))).chain,
    "row 20: an empty URI": ROOT.issue(SAN(uris=("",))).chain,
    "row 21: no key usage": ROOT.workload(ID, key_usage=None).chain,
    "row 21: key usage not critical": ROOT.workload(ID, key_usage_critical=False).chain,
    "row 21: no digitalSignature": ROOT.workload(ID, key_usage=usage("key_agreement")).chain,
    "row 21: only for servers": ROOT.workload(
        ID, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)
    ).chain,
    "row 21: not valid yet": ROOT.workload(ID, begins=dt.timedelta(minutes=1)).chain,
    "row 21: an authority nobody knows": STRANGER.workload(ID).chain,
    "row 21: a partner's authority for our domain": PARTNER.workload(ID).chain,
    "row 21: our authority for the partner": ROOT.workload("spiffe://partner.test/w").chain,
    "row 21: our authority for an unknown domain": ROOT.workload("spiffe://nobody.test/w").chain,
    "row 21: the partner's root under our leaf": swapped(ROOT.workload(ID), PARTNER),
    "row 21: our root under a stranger's leaf": swapped(STRANGER.workload(ID), ROOT),
    "row 21: our intermediate's root left out": ROOT.intermediate("example.org")
    .workload(ID)
    .chain[:-1],
    "the root alone": ROOT.chain,
    "a leaf alone": ROOT.workload(ID).chain[:1],
    "nothing": (),
    "no certificate": (b"\x30\x03abc",),
    "an empty certificate": (b"",),
    "more after the certificate": (ROOT.workload(ID).chain[0] + b"\0", ROOT.chain[0]),
    "a chain of nine": (*(ROOT.workload(ID).chain[:1] * 8), ROOT.chain[0]),
    "a workload that signs": grandchild_of_a_workload(),
    "an intermediate that is no authority": through(
        ROOT.intermediate("example.org", authority=False)
    ),
    "an intermediate that may not sign": through(
        ROOT.intermediate("example.org", key_usage=usage("digital_signature"))
    ),
    "an intermediate without basic constraints": through(
        ROOT.intermediate("example.org", authority=None)
    ),
    "an intermediate with a workload's identity": through(
        ROOT.intermediate("example.org", uris=("spiffe://example.org/server",))
    ),
    "an intermediate with a malformed identity": through(
        ROOT.intermediate("example.org", uris=("spiffe://example.org/",))
    ),
    "a longer path than allowed": through(
        ROOT.intermediate("example.org", path_length=0).intermediate("example.org")
    ),
    "a critical extension that nobody knows": ROOT.workload(
        ID, extra=x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    ).chain,
    "an RSA key of 1024 bits": ROOT.workload(ID, key=SMALL).chain,
    "a DSA key": ROOT.workload(ID, key=dsa.generate_private_key(2048)).chain,
    "certificates in another order": tuple(reversed(ROOT.workload(ID).chain)),
}


@pytest.mark.parametrize("chain", [pytest.param(chain, id=name) for name, chain in INVALID.items()])
def test_a_bad_chain_is_refused(chain: tuple[bytes, ...]) -> None:
    """Rows 19 to 21, and RFC 5280's rules besides: 401 credential_invalid."""
    assert refused(chain) is Code.CREDENTIAL_INVALID


def test_an_expired_certificate_is_told_apart() -> None:
    """There is no leeway: certificates are renewed at half their life."""
    leaf = ROOT.workload(ID)
    end = leaf.certificate.not_valid_after_utc

    assert verify(leaf.chain, end).expires_at == end
    assert refused(leaf.chain, end + dt.timedelta(seconds=1)) is Code.CREDENTIAL_EXPIRED


def test_an_extension_that_is_not_critical_may_be_unknown() -> None:
    """RFC 5280, section 4.2: it is ignored."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")

    verify(ROOT.workload(ID, extra=unknown, extra_critical=False).chain)


def test_keys_of_today_are_strong_enough() -> None:
    """P-256, P-384, P-521, RSA from 2048 bits, Ed25519."""
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        verify(ROOT.workload(ID, key=ec.generate_private_key(curve)).chain)
    key: Any = ed25519.Ed25519PrivateKey.generate()
    verify(ROOT.workload(ID, key=key).chain)


GOOD: Final = ROOT.intermediate("example.org").workload(ID).chain


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_are_refused_as_documented(chain: list[bytes]) -> None:
    """Nothing but the documented refusals comes out."""
    assert refused(tuple(chain)) is Code.CREDENTIAL_INVALID


@given(st.integers(0, 2), st.data())
def test_any_changed_byte_is_noticed(which: int, data: st.DataObject) -> None:
    """No byte of a good chain can be another and the chain stay good."""
    place = data.draw(st.integers(0, len(GOOD[which]) - 1))
    value = data.draw(st.integers(0, 255))
    changed = GOOD[which][:place] + bytes([value]) + GOOD[which][place + 1 :]
    if changed != GOOD[which]:
        refused((*GOOD[:which], changed, *GOOD[which + 1 :]))
