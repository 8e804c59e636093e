"""
A certificate that Vault made in, what it says of itself out, unless it is not what was asked for.

The policy decided the names, the caller's request the key, the ceiling how long: whatever the role
on the server would have allowed besides, a certificate that says anything else goes to nobody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
    load_ssh_public_key,
)
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    CertificateRevocationList,
    DNSName,
    DuplicateExtension,
    ExtensionNotFound,
    GeneralName,
    InvalidVersion,
    RFC822Name,
    SubjectAlternativeName,
    UnsupportedGeneralNameType,
    load_pem_x509_certificate,
    load_pem_x509_crl,
    load_pem_x509_csr,
)
from cryptography.x509.oid import NameOID

from taskmint.errors import BackendFailed, Code
from taskmint.model.scope import Entitlement, EntitlementKind, Json

# What is raised besides ValueError for bytes that are no certificate: by `cryptography`, and by the
# clock for a date that it does not have.
_UNREADABLE: Final = (
    OSError,
    OverflowError,
    DuplicateExtension,
    InvalidVersion,
    UnsupportedAlgorithm,
    UnsupportedGeneralNameType,
)
# Vault dates a certificate back by 30 s unless the role says otherwise; clocks differ as well.
_END_OF_TIME: Final = int(datetime.max.replace(tzinfo=UTC).timestamp())
_SKEW: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate's serial number, as `ports.Minted` has it, and when it expires by itself."""

    serial: str
    expires_at: datetime


class _Key(Protocol):
    def public_bytes(self, _encoding: Encoding, _form: PublicFormat, /) -> bytes: ...


class WrongCertificate(Exception):
    """Raised inside this package; says what is wrong with a certificate."""


def issued(entitlement: Entitlement, data: Mapping[str, Json], now: datetime) -> Issued | None:
    """
    Read the certificate of a `pki` entitlement or a signed `ssh` key; None for other kinds.

    Raises BackendFailed when it is not exactly the one that was asked for.
    """
    read: Callable[[Entitlement, Mapping[str, Json]], tuple[Issued, datetime]]
    if entitlement.kind is EntitlementKind.PKI:
        read = _x509
    elif entitlement.kind is EntitlementKind.SSH and not entitlement.revocable:
        read = _ssh
    else:
        return None
    try:
        made, begins = read(entitlement, data)
        _within(entitlement.ceiling or timedelta(), begins, made.expires_at, now)
    except WrongCertificate as wrong:
        raise _failed(entitlement, str(wrong)) from None
    except (ValueError, TypeError, KeyError, *_UNREADABLE):
        raise _failed(entitlement, "cannot be read") from None
    return made


def lists(crl_pem: str, serial: str) -> bool:
    """Say whether a revocation list names a certificate. Raises BackendFailed."""
    try:
        crl: CertificateRevocationList = load_pem_x509_crl(crl_pem.encode())
        number = int(serial.replace("-", ""), 16)
        return crl.get_revoked_certificate_by_serial_number(number) is not None
    except (ValueError, *_UNREADABLE):
        raise BackendFailed(Code.VAULT_ERROR, "Vault gave no revocation list") from None


def _within(ceiling: timedelta, begins: datetime, ends: datetime, now: datetime) -> None:
    if ends > now + ceiling + _SKEW or ends - begins > ceiling + _SKEW:
        raise WrongCertificate("lives longer than its ceiling")


def _failed(entitlement: Entitlement, what: str) -> BackendFailed:
    return BackendFailed(
        Code.VAULT_ERROR,
        f"the certificate that Vault made for {entitlement.name} {what}; it was given to nobody",
        fix="run `taskmint vault check`: the role on the server allows more than the policy",
    )


def _x509(entitlement: Entitlement, data: Mapping[str, Json]) -> tuple[Issued, datetime]:
    text = str(data["certificate"])
    if text.count("-----BEGIN") > 1:  # the reader takes the first; the caller gets them all
        raise WrongCertificate("is not alone")
    certificate = load_pem_x509_certificate(text.encode())
    body = entitlement.body
    if "csr" in body:
        asked = load_pem_x509_csr(str(body["csr"]).encode()).public_key()
        if _spki(asked) != _spki(certificate.public_key()):
            raise WrongCertificate("is for another key")
    names = [(name.oid, name.value) for name in certificate.subject]
    common_name = str(body["common_name"])
    others = [oid for oid, _ in names if oid != NameOID.COMMON_NAME]
    if [value for oid, value in names if oid == NameOID.COMMON_NAME] != [common_name]:
        raise WrongCertificate("has another common name")
    if not set(others) <= _OF_THE_ROLE:
        raise WrongCertificate("has a subject beyond the common name")
    wanted = {name for name in str(body.get("alt_names", "")).split(",") if name}
    found = _alt_names(certificate)
    if not wanted <= found <= wanted | {common_name}:
        raise WrongCertificate("has other names than those asked for")
    if _is_authority(certificate):
        raise WrongCertificate("may sign certificates itself")
    digits = f"{certificate.serial_number:x}"
    padded = digits.zfill(len(digits) + len(digits) % 2)
    serial = "-".join(padded[at : at + 2] for at in range(0, len(padded), 2))
    return Issued(serial, certificate.not_valid_after_utc), certificate.not_valid_before_utc


# A role may fix these for all of its certificates; a request cannot.
_OF_THE_ROLE: Final = frozenset(
    {
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.STREET_ADDRESS,
        NameOID.POSTAL_CODE,
    }
)


def _alt_names(certificate: Certificate) -> set[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(SubjectAlternativeName)
    except ExtensionNotFound:
        return set()
    return {_text(name) for name in extension.value}


def _text(name: GeneralName) -> str:
    """Write a name as it is asked for; a kind that is never asked for equals nothing."""
    return name.value if isinstance(name, DNSName | RFC822Name) else repr(name)


def _is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False


def _spki(key: _Key) -> bytes:
    """Encode a key so that equal keys have equal bytes."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _ssh(entitlement: Entitlement, data: Mapping[str, Json]) -> tuple[Issued, datetime]:
    body = entitlement.body
    signed = load_ssh_public_identity(str(data["signed_key"]).strip().encode())
    if not isinstance(signed, SSHCertificate) or signed.type is not SSHCertificateType.USER:
        raise WrongCertificate("is not a user's")
    asked = load_ssh_public_key(str(body["public_key"]).encode())
    if _spki(asked) != _spki(signed.public_key()):
        raise WrongCertificate("is for another key")
    wanted = {name.encode() for name in str(body["valid_principals"]).split(",")}
    if set(signed.valid_principals) != wanted:
        raise WrongCertificate("has other principals than those asked for")
    if signed.valid_before > _END_OF_TIME:
        raise WrongCertificate("lives for ever")
    expires_at = datetime.fromtimestamp(signed.valid_before, UTC)
    return Issued(f"{signed.serial:x}", expires_at), datetime.fromtimestamp(signed.valid_after, UTC)
