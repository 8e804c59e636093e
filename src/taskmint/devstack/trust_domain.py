"""
The development trust domain: keys in memory, SVIDs and bundles out.

Written from the SPIFFE standards X509-SVID (sections 3 and 4), JWT-SVID (2 and 3) and Trust Domain
and Bundle (4). It does what SPIRE's server does for one trust domain without federation, and it
does not keep its keys: a new process is a new trust domain of the same name.
"""

import base64
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ALGORITHM: Final = "ES256"
_AUTHORITY_LIFE: Final = timedelta(days=1)
_BACKDATE: Final = timedelta(seconds=10)  # for clocks that disagree, as SPIRE does
_COORDINATE_BYTES: Final = 32  # P-256, RFC 7518 section 6.2.1.2


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A leaf in DER with its unencrypted PKCS#8 key; `authority` is its issuer's serial number."""

    spiffe_id: str
    certificate: bytes
    key: bytes
    authority: int
    renew_at: datetime


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A signed token; `kid` is the key that signed it."""

    spiffe_id: str
    token: str
    kid: str
    renew_at: datetime


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class _SigningKey:
    kid: str
    key: ec.EllipticCurvePrivateKey


class TrustDomain:
    """
    One trust domain's authorities, newest last: the last one signs, all of them are published.
    """

    def __init__(self, name: str, *, jwt_life: timedelta, x509_life: timedelta) -> None:
        self.name = name
        self.id = f"spiffe://{name}"
        self._jwt_life = jwt_life
        self._x509_life = x509_life
        self._authorities: tuple[_Authority, ...] = (_new_authority(self.id),)
        self._signing_keys: tuple[_SigningKey, ...] = (_new_signing_key(),)

    def is_fresh(self, svid: X509Svid | JwtSvid) -> bool:
        """
        Whether an SVID may be handed out again.

        SPIRE's agent hands out the same one until half its life is over. A token goes on being
        handed out when keys rotate, as long as its key is published; a certificate is replaced at
        once when its authority is not the newest.
        """
        if datetime.now(UTC) >= svid.renew_at:
            return False
        if isinstance(svid, JwtSvid):
            return any(svid.kid == signer.kid for signer in self._signing_keys)
        return svid.authority == self._authorities[-1].certificate.serial_number

    def rotate_jwt(self, *, retire: bool = False) -> None:
        """Sign with a new key; with `retire` the old ones are no longer published."""
        kept = () if retire else self._signing_keys
        self._signing_keys = (*kept, _new_signing_key())

    def rotate_x509(self, *, retire: bool = False) -> None:
        """Sign with a new authority; with `retire` the old ones are no longer published."""
        kept = () if retire else self._authorities
        self._authorities = (*kept, _new_authority(self.id))

    def x509_bundle(self) -> bytes:
        """Concatenate the authorities' certificates in DER, as the Workload API wants them."""
        return b"".join(
            authority.certificate.public_bytes(serialization.Encoding.DER)
            for authority in self._authorities
        )

    def jwks(self) -> Mapping[str, Sequence[Mapping[str, str]]]:
        """Publish the JWT authorities as a standard JWKS (RFC 7517), as SPIRE's OIDC provider."""
        return {"keys": [_jwk(authority) for authority in self._signing_keys]}

    def jwt_bundle(self) -> bytes:
        """Publish the same as JSON bytes: the Workload API's JWT bundle."""
        return json.dumps(self.jwks()).encode()

    def mint_jwt(self, spiffe_id: str, audience: Sequence[str]) -> JwtSvid:
        """Sign a JWT-SVID: `sub`, `aud`, `exp` and `iat`, and a header with `alg`, `kid`, `typ`."""
        now = datetime.now(UTC)
        signer = self._signing_keys[-1]
        claims = {
            "sub": spiffe_id,
            "aud": list(audience),
            "iat": int(now.timestamp()),
            "exp": int((now + self._jwt_life).timestamp()),
        }
        token = jwt.encode(claims, signer.key, algorithm=_ALGORITHM, headers={"kid": signer.kid})
        return JwtSvid(spiffe_id, token, signer.kid, now + self._jwt_life / 2)

    def validate_jwt(self, token: str, audience: str) -> Mapping[str, Any]:
        """Return the claims of a JWT-SVID of this trust domain. Raises jwt.InvalidTokenError."""
        kid = jwt.get_unverified_header(token).get("kid")
        key = next((each.key for each in self._signing_keys if each.kid == kid), None)
        if key is None:
            raise jwt.InvalidTokenError("no authority with this key id")
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key.public_key(),
            algorithms=[_ALGORITHM],
            audience=audience,
            options={"require": ["sub", "aud", "exp"]},
        )
        if not str(claims["sub"]).startswith(f"{self.id}/"):
            raise jwt.InvalidTokenError("the subject is not of this trust domain")
        return claims

    def mint_x509(self, spiffe_id: str) -> X509Svid:
        """Sign an X509-SVID with a fresh P-256 key."""
        now = datetime.now(UTC)
        authority = self._authorities[-1]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _certificate(spiffe_id, key, now + self._x509_life)
            .issuer_name(authority.certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
                critical=False,
            )
            .sign(authority.key, hashes.SHA256())
        )
        return X509Svid(
            spiffe_id,
            certificate.public_bytes(serialization.Encoding.DER),
            key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            authority.certificate.serial_number,
            now + self._x509_life / 2,
        )


def _new_signing_key() -> _SigningKey:
    return _SigningKey(secrets.token_urlsafe(16), ec.generate_private_key(ec.SECP256R1()))


def _new_authority(trust_domain_id: str) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    until = datetime.now(UTC) + _AUTHORITY_LIFE
    builder = _certificate(trust_domain_id, key, until)
    certificate = (
        builder.issuer_name(_name())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _certificate(
    uri: str, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    """What leaf and authority have in common; exactly one URI names the holder."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name())
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(until)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name() -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "taskmint development")])


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _jwk(authority: _SigningKey) -> Mapping[str, str]:
    point = authority.key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "kid": authority.kid,
        "x": _base64url(point.x),
        "y": _base64url(point.y),
    }


def _base64url(coordinate: int) -> str:
    return base64.urlsafe_b64encode(coordinate.to_bytes(_COORDINATE_BYTES)).rstrip(b"=").decode()
