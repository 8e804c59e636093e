"""Keys of a caller, what it sends of them, and a list of what was revoked."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "p224": ec.SECP224R1(),
    "k256": ec.SECP256K1(),
    "p256": ec.SECP256R1(),
    "p384": ec.SECP384R1(),
    "p521": ec.SECP521R1(),
}


@cache
def key(kind: str) -> Key:
    """A private key of a kind, the same one each time."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa")))


def subject(common_name: str | None = None) -> x509.Name:
    """A subject of one common name, or an empty one."""
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def signed(builder: x509.CertificateSigningRequestBuilder, kind: str = "p256") -> str:
    """Sign a request by a key of a kind."""
    algorithm = None if kind == "ed25519" else hashes.SHA256()
    return builder.sign(key(kind), algorithm).public_bytes(Encoding.PEM).decode()


@cache
def request(kind: str = "p256", common_name: str | None = None) -> str:
    """A certificate request that asks for nothing but its key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(common_name))
    return signed(builder, kind)


@cache
def ssh_key(kind: str = "ed25519") -> str:
    """A line of an OpenSSH public key, without a comment."""
    public = key(kind).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def revocation_list(serial: int) -> str:
    """A revocation list, valid for an hour, that names one certificate."""
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
    made = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(subject("CA"))
        .last_update(now)
        .next_update(now + timedelta(hours=1))
        .add_revoked_certificate(entry)
        .sign(key("p256"), hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM).decode()
