"""A certificate that comes back is held against what was asked for: made here, each wrong once."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from policy.keys import key, request, revocation_list, ssh_key, subject
from taskmint.errors import BackendFailed
from taskmint.model.scope import Entitlement, EntitlementKind, Json, KeyField
from taskmint.vault.certificates import Issued, issued, lists

NOW = datetime.now(UTC).replace(microsecond=0)
TEN = timedelta(minutes=10)
CA = ec.generate_private_key(ec.SECP256R1())
WEB = Entitlement(
    "web",
    EntitlementKind.PKI,
    "pki",
    "sign/web",
    "POST",
    {"common_name": "a.example.org", "alt_names": "b.example.org", "csr": request()},
    revocable=False,
    ceiling=TEN,
    key_field=KeyField.CSR,
)
HOST = Entitlement(
    "host",
    EntitlementKind.SSH,
    "ssh",
    "sign/ops",
    "POST",
    {"valid_principals": "deploy,ops", "public_key": ssh_key()},
    revocable=False,
    ceiling=TEN,
    key_field=KeyField.PUBLIC_KEY,
)


def x509_data(
    *,
    kind: str = "p256",
    name: x509.Name | None = None,
    names: tuple[x509.GeneralName, ...] = (x509.DNSName("b.example.org"),),
    ends: datetime = NOW + TEN,
    begins: datetime = NOW - timedelta(seconds=30),
    authority: bool = False,
) -> dict[str, Json]:
    """What Vault would answer, right but for what is given."""
    own = key(kind).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject("a.example.org") if name is None else name)
        .issuer_name(subject("CA"))
        .public_key(own)
        .serial_number(0x0A1BFF)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(CA, hashes.SHA256())
    return {"certificate": made.public_bytes(Encoding.PEM).decode()}


def ssh_data(
    *,
    kind: str = "ed25519",
    principals: tuple[bytes, ...] = (b"deploy", b"ops"),
    ends: int = int((NOW + TEN).timestamp()),
    of: SSHCertificateType = SSHCertificateType.USER,
) -> dict[str, Json]:
    """What Vault would answer to a signing, right but for what is given."""
    own = key(kind).public_key()
    assert isinstance(own, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey)
    builder = (
        SSHCertificateBuilder()
        .public_key(own)
        .serial(0xA3959ED6)
        .type(of)
        .key_id(b"x")
        .valid_after(int(NOW.timestamp()) - 30)
        .valid_before(ends)
    )
    for_all: Callable[[], SSHCertificateBuilder] = builder.valid_for_all_principals
    builder = builder.valid_principals(list(principals)) if principals else for_all()
    return {"signed_key": builder.sign(CA).public_bytes().decode() + "\n"}


def far_data(begins: int) -> dict[str, Json]:
    """A signing that begins when no clock can tell: the builder refuses to, so it is written in."""
    name, text, *_ = str(ssh_data()["signed_key"]).split()
    now = (int(NOW.timestamp()) - 30).to_bytes(8, "big")
    blob = base64.b64decode(text)
    assert blob.count(now) == 1
    changed = base64.b64encode(blob.replace(now, begins.to_bytes(8, "big"))).decode()
    return {"signed_key": f"{name} {changed}"}


def test_the_right_ones_are_read() -> None:
    """Serial numbers as the ledger has them, and when they end."""
    assert issued(WEB, x509_data(), NOW) == Issued("0a-1b-ff", NOW + TEN)
    with_common = (x509.DNSName("a.example.org"), x509.DNSName("b.example.org"))
    assert issued(WEB, x509_data(names=with_common), NOW) is not None
    fixed = x509.Name(
        [*subject("a.example.org"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "O")]
    )
    assert issued(WEB, x509_data(name=fixed), NOW) is not None
    assert issued(HOST, ssh_data(), NOW) == Issued("a3959ed6", NOW + TEN)


def two_certificates() -> dict[str, Json]:
    """The right one, and another behind it, which a reader of the first does not see."""
    other = x509_data(name=subject("admin"), ends=NOW + timedelta(days=60))
    return {"certificate": f"{x509_data()['certificate']}{other['certificate']}"}


B = x509.DNSName("b.example.org")
WRONG: dict[str, tuple[Callable[[], dict[str, Json]], str]] = {
    "two": (two_certificates, "is not alone"),
    "key": (lambda: x509_data(kind="p384"), "is for another key"),
    "name": (lambda: x509_data(name=subject("admin")), "has another common name"),
    "no name": (lambda: x509_data(name=subject()), "has another common name"),
    "user id": (
        lambda: x509_data(
            name=x509.Name([*subject("a.example.org"), x509.NameAttribute(NameOID.USER_ID, "root")])
        ),
        "has a subject beyond",
    ),
    "one name more": (lambda: x509_data(names=(B, x509.DNSName("admin"))), "has other names"),
    "a wildcard": (lambda: x509_data(names=(B, x509.DNSName("*.example.org"))), "has other names"),
    "an address": (
        lambda: x509_data(names=(B, x509.IPAddress(ip_address("10.0.0.1")))),
        "has other names",
    ),
    "a uri": (
        lambda: x509_data(names=(B, x509.UniformResourceIdentifier("b.example.org"))),
        "has other names",
    ),
    "a name less": (lambda: x509_data(names=()), "has other names"),
    "an authority": (lambda: x509_data(authority=True), "may sign certificates itself"),
    "a long life": (lambda: x509_data(ends=NOW + timedelta(hours=1)), "lives longer"),
    "a long past": (lambda: x509_data(begins=NOW - timedelta(hours=1)), "lives longer"),
    "nothing": (dict, "cannot be read"),
    "no certificate": (lambda: {"certificate": ["x"]}, "cannot be read"),
}
WRONG_SSH: dict[str, tuple[Callable[[], dict[str, Json]], str]] = {
    "key": (lambda: ssh_data(kind="p256"), "is for another key"),
    "principal": (lambda: ssh_data(principals=(b"root",)), "has other principals"),
    "one more": (lambda: ssh_data(principals=(b"deploy", b"ops", b"root")), "has other principals"),
    "everybody": (lambda: ssh_data(principals=()), "has other principals"),
    "a host's": (lambda: ssh_data(of=SSHCertificateType.HOST), "is not a user's"),
    "a long life": (lambda: ssh_data(ends=int(NOW.timestamp()) + 3600), "lives longer"),
    "for ever": (lambda: ssh_data(ends=2**64 - 1), "lives for ever"),
    "no date": (lambda: far_data(2**62), "cannot be read"),
    "the last number": (lambda: far_data(2**64 - 1), "cannot be read"),
    "the key itself": (lambda: {"signed_key": ssh_key()}, "is not a user's"),
    "nothing": (dict, "cannot be read"),
}


@pytest.mark.parametrize(
    ("entitlement", "data", "said"),
    [
        *(pytest.param(WEB, *wrong, id=f"x509 {name}") for name, wrong in WRONG.items()),
        *(pytest.param(HOST, *wrong, id=f"ssh {name}") for name, wrong in WRONG_SSH.items()),
    ],
)
def test_a_wrong_one_is_given_to_nobody(
    entitlement: Entitlement, data: Callable[[], dict[str, Json]], said: str
) -> None:
    """Whatever the role on the server allowed, or whoever answered instead of it."""
    with pytest.raises(BackendFailed) as failed:
        issued(entitlement, data(), NOW)
    assert said in failed.value.detail
    assert "given to nobody" in failed.value.detail
    assert not failed.value.created_nothing


@given(text=st.text(max_size=200), field=st.sampled_from(["certificate", "signed_key"]))
def test_reading_is_total(text: str, field: str) -> None:
    """Any text for a certificate, or for a list of them, is a failure with a code."""
    pem = f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n"
    crl = pem.replace("CERTIFICATE", "X509 CRL")
    for given_text in (text, pem, f"ssh-ed25519-cert-v01@openssh.com {text}"):
        with pytest.raises(BackendFailed):
            issued(WEB if field == "certificate" else HOST, {field: given_text}, NOW)
    for given_text in (text, crl):
        with pytest.raises(BackendFailed):
            lists(given_text, "0a-1b")


def test_a_list_names_what_it_names() -> None:
    """Exactly the number; and a number that is none is no match but a failure."""
    text = revocation_list(0x0A1BFF)
    assert lists(text, "0a-1b-ff")
    assert not lists(text, "0a-1b-fe")
    with pytest.raises(BackendFailed):
        lists(text, "not-a-number")
