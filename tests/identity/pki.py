"""Trust domains that issue X.509-SVIDs, well or badly, as a test asks."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from taskmint.identity.x509_context import OwnSvid
from taskmint.model.secret import Secret
from taskmint.model.spiffe import SpiffeId

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | dsa.DSAPrivateKey

BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
    "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def usage(*names: str) -> x509.KeyUsage:
    """A key usage with these bits."""
    return x509.KeyUsage(**{name: name in names for name in USAGES})


def constraints(
    permitted: Sequence[x509.GeneralName] = (), excluded: Sequence[x509.GeneralName] = ()
) -> x509.NameConstraints:
    """What an authority may name; nothing in a list means that it is not there."""
    return x509.NameConstraints(list(permitted) or None, list(excluded) or None)


def uri(name: str) -> x509.UniformResourceIdentifier:
    """A URI, or what constrains one."""
    return x509.UniformResourceIdentifier(name)


def der(certificate: x509.Certificate) -> bytes:
    """The certificate's bytes."""
    return certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Terms:
    """What a certificate says; the defaults are SPIRE's for a workload."""

    uris: Sequence[str] = ()
    dns: Sequence[str] = ()
    authority: bool | None = False  # None: no basic constraints at all
    path_length: int | None = None
    key_usage: x509.KeyUsage | None = None
    key_usage_critical: bool = True
    purposes: Sequence[ObjectIdentifier] | None = BOTH
    begins: dt.timedelta = dt.timedelta(minutes=-10)
    ends: dt.timedelta = dt.timedelta(hours=1)
    extra: x509.ExtensionType | None = None
    extra_critical: bool = True
    name: str = "SPIRE"


WORKLOAD: Final = usage("digital_signature", "key_encipherment", "key_agreement")
AUTHORITY: Final = usage("key_cert_sign", "crl_sign")


@dataclass(frozen=True)
class Signed:
    """A certificate with its key and what stands above it, root last."""

    certificate: x509.Certificate
    key: Key
    above: tuple["Signed", ...] = ()

    @property
    def chain(self) -> tuple[bytes, ...]:
        """DER, leaf first and root last, as OpenSSL reports what it verified."""
        return (der(self.certificate), *(der(one.certificate) for one in self.above))

    def svid(self, spiffe_id: str) -> OwnSvid:
        """What an agent would give a workload: the chain without its root, and the key."""
        return OwnSvid(
            SpiffeId.parse(spiffe_id),
            self.chain[:-1],
            Secret(self.pkcs8),
            self.certificate.not_valid_after_utc,
        )

    @property
    def pkcs8(self) -> bytes:
        """The key, as the Workload API sends it."""
        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def issue(self, terms: Terms, key: Key | None = None) -> "Signed":
        """Sign a certificate with these terms."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        certificate = _build(terms, key, self.certificate, self.key)
        return Signed(certificate, key, (self, *self.above))

    def workload(self, spiffe_id: str, key: Key | None = None, **changes: Any) -> "Signed":
        """Sign an X.509-SVID as SPIRE does, but for the changes."""
        terms: dict[str, Any] = {"uris": (spiffe_id,), "key_usage": WORKLOAD} | changes
        return self.issue(Terms(**terms), key)

    def intermediate(self, trust_domain: str, key: Key | None = None, **changes: Any) -> "Signed":
        """Sign an authority below this one."""
        terms: dict[str, Any] = {
            "uris": (f"spiffe://{trust_domain}",),
            "authority": True,
            "key_usage": AUTHORITY,
            "purposes": None,
            "name": f"{trust_domain} intermediate",
        } | changes
        return self.issue(Terms(**terms), key)


def root(trust_domain: str, **changes: Any) -> Signed:
    """Make a trust domain's authority, as SPIRE does."""
    key = ec.generate_private_key(ec.SECP256R1())
    terms: dict[str, Any] = {
        "uris": (f"spiffe://{trust_domain}",),
        "authority": True,
        "key_usage": AUTHORITY,
        "purposes": None,
        "name": trust_domain,
        "ends": dt.timedelta(days=1),
    } | changes
    return Signed(_build(Terms(**terms), key, None, key), key)


def misspelt(trust_domain: str) -> bytes:
    """A root (DER) whose name is no text, which cryptography notices late and OpenSSL at once."""
    good = der(root(trust_domain, name="the partner").certificate)
    assert good.count(b"the partner") == 2
    return good.replace(b"the partner", b"the\xffpartner")


def impostor(of: Signed, name: str) -> bytes:
    """A root (DER) of another key that has the name and the key id of this one."""
    other = root(name, name=name)
    ids = [x509.SubjectKeyIdentifier.from_public_key(one.key.public_key()) for one in (other, of)]
    return der(other.certificate).replace(ids[0].digest, ids[1].digest)


def _build(
    terms: Terms, key: Key, issuer: x509.Certificate | None, signer: Key
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, terms.name)])
    signed_with = issuer.public_key() if issuer else key.public_key()
    authority_key = x509.SubjectKeyIdentifier.from_public_key(signed_with)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + terms.begins)
        .not_valid_after(now + terms.ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(authority_key.digest, None, None), critical=False
        )
    )
    if terms.authority is not None:
        constraints = x509.BasicConstraints(ca=terms.authority, path_length=terms.path_length)
        builder = builder.add_extension(constraints, critical=True)
    if terms.key_usage is not None:
        builder = builder.add_extension(terms.key_usage, critical=terms.key_usage_critical)
    if terms.purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(terms.purposes), critical=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in terms.uris]
    names += [x509.DNSName(name) for name in terms.dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if terms.extra is not None:
        builder = builder.add_extension(terms.extra, critical=terms.extra_critical)
    return builder.sign(signer, hashes.SHA256())
