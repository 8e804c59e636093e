"""
Vectors written from the text of the SPIFFE standards (github.com/spiffe/spiffe at 665a28f3253e).

Each names the section that decides it. Vectors for JWT-SVIDs and X.509-SVIDs are functions of a
moment, because what they show depends on the time.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from identity.pki import WORKLOAD, Signed, Terms, constraints, root, uri, usage
from identity.signer import SUBJECT, Authority, claims, encode

LONGEST_DOMAIN: Final = "a" * 255


@dataclass(frozen=True)
class IdVector:
    """A text, and its canonical form when it is a SPIFFE ID."""

    section: str
    text: str
    canonical: str | None = None


SPIFFE_IDS: Final = (
    IdVector("2", "spiffe://trust-domain-name/path", "spiffe://trust-domain-name/path"),
    IdVector("2", "spiffe://example.org", "spiffe://example.org"),
    IdVector("2", "https://example.org/path"),
    IdVector("2", "example.org/path"),
    IdVector("2", "spiffe:example.org/path"),
    IdVector("2", "spiffe:/example.org/path"),
    IdVector("2", ""),
    IdVector("2", "spiffe://"),
    IdVector("2", "spiffe://example.org/path?query"),
    IdVector("2", "spiffe://example.org?query"),
    IdVector("2", "spiffe://example.org/path#fragment"),
    IdVector("2", "spiffe://example.org/path\n"),
    IdVector("2", " spiffe://example.org/path"),
    IdVector("2.1", "spiffe:///path"),
    IdVector("2.1", "spiffe://user@example.org/path"),
    IdVector("2.1", "spiffe://user:pass@example.org/path"),
    IdVector("2.1", "spiffe://@example.org/path"),
    IdVector("2.1", "spiffe://example.org:8080/path"),
    IdVector("2.1", "spiffe://example.org:/path"),
    IdVector("2.1", "spiffe://a.b-c_d.0/path", "spiffe://a.b-c_d.0/path"),
    IdVector("2.1", "spiffe://exam!ple.org/path"),
    IdVector("2.1", "spiffe://exämple.org/path"),
    IdVector("2.1", "spiffe://ex%61mple.org/path"),
    IdVector("2.1", "spiffe://192.0.2.1/path", "spiffe://192.0.2.1/path"),
    IdVector("2.1", "spiffe://[2001:db8::1]/path"),
    IdVector("2.1", "spiffe://example.org\n"),
    IdVector("2.2", "spiffe://example.org/p%61th"),
    IdVector("2.2", "spiffe://example.org//path"),
    IdVector("2.2", "spiffe://example.org/a//b"),
    IdVector("2.2", "spiffe://example.org/."),
    IdVector("2.2", "spiffe://example.org/a/./b"),
    IdVector("2.2", "spiffe://example.org/a/.."),
    IdVector("2.2", "spiffe://example.org/.../..a", "spiffe://example.org/.../..a"),
    IdVector("2.2", "spiffe://example.org/"),
    IdVector("2.2", "spiffe://example.org/path/"),
    IdVector("2.2", "spiffe://example.org/A.z-0_9", "spiffe://example.org/A.z-0_9"),
    IdVector("2.2", "spiffe://example.org/p*th"),
    IdVector("2.2", "spiffe://example.org/päth"),
    IdVector("2.2", "spiffe://example.org/a b"),
    IdVector(
        "2.2",
        "spiffe://k8s-west.example.com/ns/staging/sa/default",
        "spiffe://k8s-west.example.com/ns/staging/sa/default",
    ),
    IdVector("2.3", f"spiffe://{LONGEST_DOMAIN}/x", f"spiffe://{LONGEST_DOMAIN}/x"),
    IdVector("2.3", f"spiffe://{LONGEST_DOMAIN}a/x"),
    IdVector("2.3", "spiffe://e.org/" + "p" * 2033, "spiffe://e.org/" + "p" * 2033),
    IdVector("2.3", "spiffe://e.org/" + "p" * 2034),
    IdVector("2.4", "SPIFFE://EXAMPLE.ORG/Path", "spiffe://example.org/Path"),
    IdVector("2.4", "sPiFfE://Example.Org", "spiffe://example.org"),
)

KEY: Final = Authority.ecdsa()
RSA_KEY: Final = Authority.rsa()
P384: Final = Authority.ecdsa("k384", 384)
P521: Final = Authority.ecdsa("k521", 521)


@dataclass(frozen=True)
class TokenVector:
    """A token at a moment; `narrower` says where we ask for more than the section does."""

    section: str
    what: str
    make: Callable[[int], str]
    valid: bool = False
    narrower: str = ""


def _text(at: int) -> bytes:
    return json.dumps(claims(at)).encode()


def _unsigned(body: dict[str, Any]) -> str:
    header = json.dumps({"alg": "none", "kid": "k1"}).encode()
    return f"{encode(header)}.{encode(json.dumps(body).encode())}."


def _claims(
    section: str,
    what: str,
    changes: Callable[[int], dict[str, Any]],
    *,
    valid: bool = False,
    narrower: str = "",
) -> TokenVector:
    """A token whose claims are changed."""
    return TokenVector(
        section, what, lambda at: KEY.token(claims(at, **changes(at))), valid, narrower
    )


def _header(section: str, what: str, valid: bool = False, **changes: Any) -> TokenVector:
    """A token whose header is changed."""
    return TokenVector(section, what, lambda at: KEY.token(claims(at), **changes), valid)


def _algorithm(section: str, authority: Authority, algorithm: str) -> TokenVector:
    return TokenVector(
        section, algorithm, lambda at: authority.token(claims(at), algorithm=algorithm), valid=True
    )


JWT_SVIDS: Final = (
    TokenVector("1", "compact serialisation", lambda at: KEY.token(claims(at)), valid=True),
    TokenVector("1", "JSON serialisation", lambda _: '{"payload":"e30","signatures":[]}'),
    _header("2", "a private header", x="y"),
    _header("2", "jku", jku="https://evil.test/k"),
    _header("2", "jwk", jwk=KEY.jwk()),
    _header("2", "x5c", x5c=["AA=="]),
    _header("2", "crit", crit=["exp"], exp=1),
    _algorithm("2.1", KEY, "ES256"),
    _algorithm("2.1", P384, "ES384"),
    _algorithm("2.1", P521, "ES512"),
    *(
        _algorithm("2.1", RSA_KEY, kind + bits)
        for kind in ("RS", "PS")
        for bits in ("256", "384", "512")
    ),
    TokenVector("2.1", "alg none", lambda at: _unsigned(claims(at))),
    _header("2.1", "alg of another key", kid="r1"),
    TokenVector(
        "2.2",
        "no kid",
        lambda at: KEY.token(claims(at), kid=None),
        narrower="a key is chosen by its id",
    ),
    _header("2.2", "an unknown kid", kid="nobody"),
    _header("2.3", "no typ", valid=True, typ=None),
    _header("2.3", "typ JOSE", valid=True, typ="JOSE"),
    _header("2.3", "typ wit+jwt", typ="wit+jwt"),
    _claims("3", "a private claim", lambda _: {"mine": 1}, valid=True),
    _claims("3.1", "no sub", lambda _: {"sub": None}),
    _claims("3.1", "a sub that is no SPIFFE ID", lambda _: {"sub": "orders"}),
    _claims("3.1", "a sub with a line feed", lambda _: {"sub": SUBJECT + "\n"}),
    _claims(
        "3.1",
        "a trust domain as sub",
        lambda _: {"sub": "spiffe://example.org"},
        narrower="workloads have paths",
    ),
    _claims("3.1", "another domain's sub", lambda _: {"sub": "spiffe://partner.test/w"}),
    _claims("3.2", "no aud", lambda _: {"aud": None}),
    _claims("3.2", "an empty aud", lambda _: {"aud": []}),
    _claims("3.2", "another aud", lambda _: {"aud": ["vault"]}),
    _claims("3.2", "aud as a text", lambda _: {"aud": "taskmint"}, valid=True),
    _claims(
        "3.2",
        "two audiences",
        lambda _: {"aud": ["taskmint", "vault"]},
        narrower="section 7.2 strongly recommends one",
    ),
    _claims("3.3", "no exp", lambda _: {"exp": None}),
    _claims("3.3", "expired an hour ago", lambda at: {"iat": at - 7000, "exp": at - 3600}),
    _claims("3.3", "expired seconds ago", lambda at: {"exp": at - 10}, valid=True),
    _claims(
        "3.3",
        "ten years",
        lambda at: {"exp": at + 315_360_000},
        narrower="no upper limit is set; ours is an hour",
    ),
    _claims("4", "RFC 7519, 4.1.4: exp as text", lambda at: {"exp": str(at + 60)}),
    _claims("4", "RFC 7519, 4.1.5: nbf tomorrow", lambda at: {"nbf": at + 86_400}),
    _claims(
        "4",
        "RFC 7519, 4.1.6: iat tomorrow",
        lambda at: {"iat": at + 86_400, "exp": at + 86_500},
        narrower="nothing is issued in the future",
    ),
    TokenVector(
        "4",
        "RFC 7519, 7.2: a duplicate claim",
        lambda at: KEY.token(b'{"sub":"spiffe://example.org/admin",' + _text(at)[1:]),
    ),
    TokenVector("4", "a changed signature", lambda at: KEY.token(claims(at))[:-8] + "AAAAAAAA"),
    TokenVector("4", "another's signature", lambda at: P384.token(claims(at), kid="k1")),
    TokenVector("5.1", "four segments", lambda at: KEY.token(claims(at)) + ".AA"),
    TokenVector("5.1", "padding", lambda at: KEY.token(claims(at)) + "=="),
)


ROOT: Final = root("example.org")
PARTNER: Final = root("partner.test")


@dataclass(frozen=True)
class ChainVector:
    """A chain, root last."""

    section: str
    what: str
    make: Callable[[], Signed]
    valid: bool = False


def _leaf(section: str, what: str, **changes: Any) -> ChainVector:
    return ChainVector(section, what, lambda: ROOT.workload(SUBJECT, **changes))


def _below(what: str, limits: x509.NameConstraints, *, valid: bool) -> ChainVector:
    """A workload of example.org below an authority with name constraints."""
    return ChainVector(
        "4.2",
        what,
        lambda: ROOT.intermediate("example.org", extra=limits).workload(SUBJECT),
        valid=valid,
    )


X509_SVIDS: Final = (
    ChainVector("2", "one URI", lambda: ROOT.workload(SUBJECT), valid=True),
    ChainVector(
        "2", "a DNS name besides", lambda: ROOT.workload(SUBJECT, dns=("a.test",)), valid=True
    ),
    _leaf("2", "two URIs", uris=(SUBJECT, "spiffe://example.org/b")),
    ChainVector("2", "no URI", lambda: ROOT.issue(Terms(key_usage=WORKLOAD))),
    _leaf("3.1", "no path", uris=("spiffe://example.org",)),
    ChainVector("3.2", "a signing certificate as a leaf", lambda: ROOT.intermediate("example.org")),
    ChainVector(
        "3.2",
        "a signing certificate with a path above",
        lambda: ROOT.intermediate("example.org", uris=("spiffe://example.org/ca",)).workload(
            SUBJECT
        ),
    ),
    ChainVector(
        "3.2",
        "a signing certificate above",
        lambda: ROOT.intermediate("example.org").workload(SUBJECT),
        valid=True,
    ),
    _leaf("4.1", "cA true", authority=True),
    ChainVector(
        "4.1",
        "a path length that is kept",
        lambda: ROOT.intermediate("example.org", path_length=0).workload(SUBJECT),
        valid=True,
    ),
    ChainVector(
        "4.1",
        "a path length that is not",
        lambda: (
            ROOT.intermediate("example.org", path_length=0)
            .intermediate("example.org")
            .workload(SUBJECT)
        ),
    ),
    _below("an authority for this domain", constraints([uri("example.org")]), valid=True),
    _below("an authority for another domain", constraints([uri("ci.example.net")]), valid=False),
    _below("for domains below this one", constraints([uri(".example.org")]), valid=False),
    _below("not for this domain", constraints((), [uri("example.org")]), valid=False),
    _leaf("4.3", "no key usage", key_usage=None),
    _leaf("4.3", "key usage not critical", key_usage_critical=False),
    _leaf("4.3", "no digitalSignature", key_usage=usage("key_agreement")),
    _leaf("4.3", "keyCertSign", key_usage=usage("digital_signature", "key_cert_sign")),
    _leaf("4.3", "cRLSign", key_usage=usage("digital_signature", "crl_sign")),
    ChainVector(
        "4.3",
        "a signing certificate without keyCertSign",
        lambda: ROOT.intermediate("example.org", key_usage=usage("digital_signature")).workload(
            SUBJECT
        ),
    ),
    ChainVector(
        "4.3",
        "keyEncipherment and keyAgreement",
        lambda: ROOT.workload(SUBJECT, key_usage=WORKLOAD),
        valid=True,
    ),
    ChainVector(
        "4.4", "no extended key usage", lambda: ROOT.workload(SUBJECT, purposes=None), valid=True
    ),
    _leaf("4.4", "not for clients", purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    ChainVector("5.1", "another domain's authority", lambda: PARTNER.workload(SUBJECT)),
    ChainVector(
        "5.1", "an authority that nobody knows", lambda: root("example.org").workload(SUBJECT)
    ),
    ChainVector(
        "5.1",
        "a signing certificate that is none",
        lambda: ROOT.intermediate("example.org", authority=False).workload(SUBJECT),
    ),
    _leaf("5.2", "another scheme", uris=("https://example.org/orders",)),
    ChainVector(
        "5.2",
        "a partner's own workload",
        lambda: PARTNER.workload("spiffe://partner.test/w"),
        valid=True,
    ),
)
