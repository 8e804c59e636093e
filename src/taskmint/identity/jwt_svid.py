"""
A token's text in, a verified JWT-SVID out. Pure: no clock, no network, no state.

Written from the JWT-SVID standard, RFC 7515 and RFC 7519, narrower where the standard leaves
room (decisions.md). Every failure is `Unproven` with a sentence of our own; what a library or the
token says reaches nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from taskmint.errors import Code, Unproven
from taskmint.model.spiffe import SpiffeId
from taskmint.strict_json import Object, decode_object

from .jwt_bundle import JwtAuthority, JwtBundles, decode_base64url, jwt_authority

_SEGMENTS: Final = 3
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
_TYPES: Final = frozenset({"JWT", "JOSE"})  # JWT-SVID, section 2.3
_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_TIME_LIMIT: Final = 1 << 53  # what JSON numbers carry exactly (RFC 8259, section 6)
_ALGORITHMS: Final = frozenset(kind + bits for kind in ("ES", "RS", "PS") for bits in _HASHES)


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What is believed beyond a good signature; times in seconds, `audience` compared exactly."""

    audience: str
    leeway: int = 30
    max_lifetime: int = 3600
    max_bytes: int = 8192


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """
    A verified token; `not_before` and `expires_at` are Unix times, before any leeway.

    `authority` names the key that signed it; `evidence` is the SHA-256 (hex) of what was signed.
    """

    spiffe_id: SpiffeId
    authority: str
    not_before: int
    expires_at: int
    evidence: str
    jti: str | None = None


def verify_jwt_svid(token: str, bundles: JwtBundles, rules: JwtRules, now: float) -> JwtSvid:
    """
    Verify a JWT-SVID at Unix time `now`, against bundles that hold believed trust domains only.

    1. Size, before anything is parsed.
    2. Three base64url segments (compact serialisation; JWT-SVID, section 1).
    3. The header: `alg` and `kid`, at most `typ`, and nothing else; a listed algorithm.
    4. The subject: a SPIFFE ID with a path (X509-SVID has no path-less workload either).
    5. The key: chosen by the subject's trust domain, then by `kid`; it must allow the algorithm.
    6. The signature.
    7. The audience: exactly one, ours.
    8. The times: integers; not expired, not from the future, not living too long.

    Raises Unproven: credential_invalid, credential_expired.
    """
    # 1.
    if len(token) > rules.max_bytes:
        raise invalid("The token is larger than a JWT-SVID may be.")
    # 2.
    signed, header, claims, signature = _split(token)
    # 3.
    algorithm, key_id = _check_header(header)
    # 4.
    spiffe_id = _subject(claims)
    # 5.
    authority = bundles.get(spiffe_id.trust_domain, {}).get(key_id)
    if authority is None or algorithm not in authority.algorithms:
        raise invalid("The token is signed by no key that speaks for its trust domain.")
    # 6.
    _check_signature(authority, algorithm, signature, signed)
    # 7.
    audience = claims.get("aud")
    if audience not in (rules.audience, [rules.audience]):
        raise invalid("The token's audience is not this daemon alone.")
    # 8.
    not_before, expires_at = _times(claims, rules)
    check_times(not_before, expires_at, rules, now)
    jti = claims.get("jti")
    return JwtSvid(
        spiffe_id=spiffe_id,
        authority=jwt_authority(spiffe_id.trust_domain, key_id),
        not_before=not_before,
        expires_at=expires_at,
        evidence=evidence_of(token),
        jti=jti if isinstance(jti, str) else None,
    )


def check_times(not_before: int, expires_at: int, rules: JwtRules, now: float) -> None:
    """Refuse what is expired or not valid yet at `now`. Raises Unproven."""
    if now >= expires_at + rules.leeway:
        raise Unproven(
            Code.CREDENTIAL_EXPIRED,
            "The token has expired.",
            fix="fetch a new JWT-SVID from the Workload API",
        )
    if now < not_before - rules.leeway:
        raise invalid("The token is not valid yet.")
    if expires_at - now > rules.max_lifetime + rules.leeway:
        raise invalid("The token lives longer than this daemon believes one.")


def invalid(detail: str) -> Unproven:
    """Build the refusal of a credential that will never be good."""
    return Unproven(
        Code.CREDENTIAL_INVALID,
        detail,
        fix="send a JWT-SVID for this daemon's audience, as the Workload API issued it",
    )


def evidence_of(token: str) -> str:
    """
    Return the SHA-256 (hex) of what the token's authority signed: what records may hold of it.

    Without the signature, because (r, s) and (r, n - s) are both good ECDSA signatures: who has a
    token can make another text of it, but not another token.
    """
    signed, _, _ = token.rpartition(".")
    return sha256(signed.encode("utf-8", "surrogatepass")).hexdigest()


def _split(token: str) -> tuple[bytes, Object, Object, bytes]:
    """Return what is signed, the header, the claims, the signature."""
    if not token.isascii():
        raise invalid("The token is not a JWT.")
    segments = token.encode("ascii").split(b".")
    if len(segments) != _SEGMENTS:
        raise invalid("The token is not a JWT.")
    try:
        header, claims = (decode_object(decode_base64url(part)) for part in segments[:2])
        signature = decode_base64url(segments[2])
    except ValueError:
        raise invalid("The token is not a JWT.") from None
    return segments[0] + b"." + segments[1], header, claims, signature


def _check_header(header: Object) -> tuple[str, str]:
    if not header.keys() <= _HEADER_MEMBERS:
        raise invalid("The token's header says more than alg, kid and typ.")
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in _ALGORITHMS:
        raise invalid("The token is signed in a way that JWT-SVIDs are not.")
    if not isinstance(key_id, str) or not key_id:
        raise invalid("The token does not name its key.")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise invalid("The token is not of type JWT.")
    return algorithm, key_id


def _subject(claims: Object) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise invalid("The token has no subject.")
    try:
        spiffe_id = SpiffeId.parse(subject)
    except ValueError:
        raise invalid("The token's subject is not a SPIFFE ID.") from None
    if not spiffe_id.path:
        raise invalid("The token's subject is a trust domain, not a workload.")
    return spiffe_id


def _check_signature(
    authority: JwtAuthority, algorithm: str, signature: bytes, signed: bytes
) -> None:
    """Verify as RFC 7518, sections 3.3 to 3.5; the key's type was bound to the algorithm before."""
    key, digest = authority.key, _HASHES[algorithm[2:]]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, _rsa_padding(algorithm, digest), digest)
        else:
            key.verify(ecdsa_der(key, signature), signed, ec.ECDSA(digest))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise invalid("The token's signature is wrong.") from None


def _rsa_padding(algorithm: str, digest: hashes.HashAlgorithm) -> padding.AsymmetricPadding:
    if algorithm.startswith("RS"):
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(digest), digest.digest_size)


def ecdsa_der(key: ec.EllipticCurvePublicKey, signature: bytes) -> bytes:
    """Turn R || S, each as long as the curve's order, into the DER that cryptography wants."""
    half = (key.curve.key_size + 7) // 8
    if len(signature) != 2 * half:
        raise ValueError("not R || S")
    return utils.encode_dss_signature(
        int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    )


def _times(claims: Object, rules: JwtRules) -> tuple[int, int]:
    """Return not-before and expiry; a token that says neither iat nor nbf begins at zero."""
    expires_at = _time(claims, "exp")
    issued_at, not_before = _time(claims, "iat"), _time(claims, "nbf")
    if expires_at is None:
        raise invalid("The token does not say when it expires.")
    if issued_at is not None and not 0 < expires_at - issued_at <= rules.max_lifetime:
        raise invalid("The token lives longer than this daemon believes one.")
    return max(issued_at or 0, not_before or 0), expires_at


def _time(claims: Object, name: str) -> int | None:
    """Read a NumericDate that is a whole number of seconds (RFC 7519, section 2)."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int or not 0 <= value < _TIME_LIMIT:
        raise invalid("The token's times are not whole seconds.")
    return value
