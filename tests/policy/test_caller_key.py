"""What a caller's own public key may be, and that nothing else of a request goes on."""

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from policy.asking import REPORT, asked, denied, granted, load
from policy.keys import key, request, signed, ssh_key, subject
from taskmint.errors import Code
from taskmint.model.scope import Approval, DecisionInput, KeyField
from taskmint.policy.caller_key import KEY_TYPES, MAX_LENGTH, accept_key, is_allowed
from taskmint.policy.parameter import Refused

SECRET = 'secret: {mount: database, path: "creds/ro-{region}", proof: login}'
SIGNING = REPORT.replace(
    SECRET, "pki: {mount: pki, role: web, operation: sign, common_name: x.example.org, ttl: 10m}"
)
REQUEST = x509.CertificateSigningRequestBuilder()
OTHER_NAME = Refused("has a subject; leave it empty, or write the policy's common name alone")
ASKING = Refused("asks for extensions or attributes, and only the policy decides these")


def csr(text: str, common_name: str | None = "x.example.org") -> str | Refused:
    """Read a certificate request for the name that the policy gives."""
    return accept_key(KeyField.CSR, text, common_name)


def line(text: str) -> str | Refused:
    """Read an OpenSSH public key."""
    return accept_key(KeyField.PUBLIC_KEY, text, None)


def wire(kind: str, *fields: bytes) -> str:
    """Write an OpenSSH public key of these fields (RFC 4253, section 6.6)."""
    parts = (kind.encode(), *fields)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return f"{kind} {base64.b64encode(blob).decode()}"


def with_keys(keys: dict[str, str]) -> DecisionInput:
    """The usual request, with keys."""
    usual = asked()
    return replace(usual, request=replace(usual.request, public_keys=keys))


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa2048"])
def test_an_allowed_key_goes_on_written_anew(kind: str) -> None:
    """Both forms, with every type that is allowed; what stood around it does not go on."""
    assert csr(f"\n  {request(kind)}\n\n") == request(kind)
    assert line(f"{ssh_key(kind)} nightly@builder\n") == ssh_key(kind)


@pytest.mark.parametrize("kind", ["p224", "k256", "rsa1024"])
def test_another_key_is_refused(kind: str) -> None:
    """Small ones, and curves that nobody asks for."""
    assert csr(request(kind)) == Refused(f"has a key that is not {KEY_TYPES}")


def test_a_small_rsa_key_for_ssh_is_refused() -> None:
    """Where the type of the line is one that is allowed."""
    assert line(ssh_key("rsa1024")) == Refused(f"is not {KEY_TYPES}")


def test_an_ssh_key_whose_point_is_compressed_is_refused() -> None:
    """OpenSSH never writes one, and its reader here raises NotImplementedError."""
    public = key("p256").public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    point = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    text = wire("ecdsa-sha2-nistp256", b"nistp256", point)
    assert line(text) == Refused("cannot be read")


@pytest.mark.parametrize(
    ("exponent", "fits"), [(65537, True), (2**32 - 1, True), (2**32 + 1, False)]
)
def test_an_rsa_key_with_a_long_exponent_is_refused(exponent: int, fits: bool) -> None:
    """Whoever checks its signatures would pay for each bit."""
    public = key("rsa2048").public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = (exponent, public.public_numbers().n)
    text = wire("ssh-rsa", *(n.to_bytes(n.bit_length() // 8 + 1, "big") for n in numbers))
    assert line(text) == (text if fits else Refused(f"is not {KEY_TYPES}"))


def test_the_policys_own_name_may_be_said_and_no_other() -> None:
    """A subject is empty, or the common name that the policy gives, alone."""
    assert csr(request(common_name="x.example.org")) == request(common_name="x.example.org")
    assert csr(request(common_name="y.example.org")) == OTHER_NAME
    organised = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "x.example.org"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Root"),
        ]
    )
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x.example.org")] * 2)
    for name in (organised, twice):
        assert csr(signed(REQUEST.subject_name(name))) == OTHER_NAME


@pytest.mark.parametrize(
    "extension",
    [
        x509.SubjectAlternativeName([x509.DNSName("admin.example.org")]),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ],
    ids=["names", "authority", "usages"],
)
def test_a_request_that_asks_for_an_extension_is_refused(extension: x509.ExtensionType) -> None:
    """A role that believes requests would sign it: so it does not get there."""
    asking = REQUEST.subject_name(subject()).add_extension(extension, critical=True)
    assert csr(signed(asking)) == ASKING


def test_a_request_with_an_attribute_is_refused() -> None:
    """A challenge password, for instance, is a secret that would travel on."""
    asking = REQUEST.subject_name(subject()).add_attribute(
        AttributeOID.CHALLENGE_PASSWORD, b"hunter2"
    )
    assert csr(signed(asking)) == ASKING


def test_a_request_that_its_key_did_not_sign_is_refused() -> None:
    """The proof of possession: any bit of the signature or the key changed."""
    der = bytearray(base64.b64decode("".join(request().splitlines()[1:-1])))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    forged = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    assert csr(forged) == Refused("is not signed by its own key")


def test_what_is_no_public_key_is_refused() -> None:
    """A private key above all, two of them, another type, a line with options, and nothing."""
    private = key("p256").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    other = key("p256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for text in (private, request() * 2, other.decode(), request() + "x", "", "\0", "é"):
        assert csr(text) == Refused("is not one PEM block of a certificate request")
    one = ssh_key()
    for text in (
        private,
        f"{one}\n{one}",
        f'command="/bin/sh" {one}',
        f"sk-{one}",
        one.replace("ssh-ed25519", "ssh-dss"),
        f"{one} \x1b[2J",
        f"@cert-authority {one}",
        "",
    ):
        assert line(text) == Refused("is not one line of an OpenSSH public key"), text
    for text in (one.replace("ssh-ed25519", "ssh-rsa"), one.replace("AAAA", "BBBB")):
        assert line(text) == Refused("cannot be read"), text


def test_a_long_text_is_refused_before_it_is_read() -> None:
    """A bound on what a parser may be given."""
    fits = request() + "\n" * (MAX_LENGTH - len(request()))
    assert csr(fits) == request()
    assert csr(fits + "\n") == Refused("is longer than 8192 characters")


@given(text=st.text(max_size=300) | st.binary(max_size=300).map(base64.b64encode).map(bytes.decode))
def test_reading_is_total(text: str) -> None:
    """Any text, also in the dress of a key, is taken or refused, and never an exception."""
    dressed = f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----"
    for given_text in (text, dressed):
        assert isinstance(csr(given_text), Refused)
    for given_text in (text, f"ssh-ed25519 {text}", f"ssh-rsa {text}"):
        assert isinstance(line(given_text), Refused)


@given(at=st.integers(0, 5000), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(at: int, value: int) -> None:
    """Wherever a request is touched: it is signed."""
    der = bytearray(base64.b64decode("".join(request().splitlines()[1:-1])))
    der[at % len(der)] = value
    body = base64.encodebytes(bytes(der)).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    read = csr(pem)
    assert isinstance(read, Refused) or read == request()


def test_a_task_that_signs_needs_a_key_and_no_other_takes_one() -> None:
    """Each refusal has the code, and says which entitlement is meant without the key itself."""
    policy = load(SIGNING)
    assert granted(policy, with_keys({"warehouse": request()})).entitlements[0].body == {
        "common_name": "x.example.org",
        "ttl": "10m",
        "csr": request(),
    }
    for keys, said in (
        ({}, '"warehouse" is missing'),
        (
            {"warehouse": ssh_key()},
            '"warehouse" is not one PEM block of a certificate request',
        ),
        (
            {"warehouse": request(), "warehose": request()},
            '"warehose" belongs to no entitlement that signs a key; did you mean warehouse?',
        ),
    ):
        denial = denied(policy, with_keys(keys), Code.PUBLIC_KEY_INVALID)
        assert denial.detail == f"the public key for {said}"
        assert denial.trace[-1] == f"public_keys: {denial.detail}"
        assert "AAAA" not in str(denial)
    denied(load(REPORT), with_keys({"warehouse": request()}), Code.PUBLIC_KEY_INVALID)


def test_an_approval_is_asked_for_when_nothing_else_is_missing() -> None:
    """A key that will not do is refused first; with the approval the rest is granted."""
    approval = "    approval: {from: ['group:a'], within: 1h}\n    deadline:"
    policy = load(SIGNING.replace("    deadline:", approval))
    bad, good = with_keys({"warehouse": ssh_key()}), with_keys({"warehouse": request()})

    denial = denied(policy, bad, Code.PUBLIC_KEY_INVALID)
    assert denial.approval is None
    assert denial.clauses == ("who: spiffe://example.org/ns/orders/sa/{job}",)
    waits = denied(policy, good, Code.NOT_PERMITTED)
    assert waits.approval == Approval(("group:a",), 1, timedelta(hours=1))
    assert waits.trace[-1] == "approval: needed, 1 of group:a"
    assert waits.clauses == (*denial.clauses, "public_keys: warehouse will do", "approval: needed")
    assert granted(policy, replace(good, approved=True)).clauses == (
        "granted",
        *denial.clauses,
        "public_keys: warehouse will do",
        "approval: given",
    )


def test_a_request_may_name_what_the_policy_names_and_nothing_else() -> None:
    """The common name is held against the body that goes to Vault, values put in."""
    policy = load(SIGNING.replace("x.example.org", "'{job}.example.org'"))
    own, other = (request("p256", f"{name}.example.org") for name in ("nightly", "admin"))

    scope = granted(policy, with_keys({"warehouse": own}))
    assert scope.entitlements[0].body["csr"] == own
    assert "public_keys: warehouse will do" in scope.trace
    denial = denied(policy, with_keys({"warehouse": other}), Code.PUBLIC_KEY_INVALID)
    assert "has a subject" in (denial.detail or "")


@pytest.mark.parametrize(
    ("bits", "allowed"), [(2047, False), (2048, True), (4096, True), (4097, False)]
)
def test_both_bounds_of_an_rsa_key_are_allowed(bits: int, *, allowed: bool) -> None:
    """The smallest and the largest, and nothing beyond; a modulus is all that is looked at."""
    key_of_size = rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()
    assert is_allowed(key_of_size) is allowed
