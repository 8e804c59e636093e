"""
A compact JWS in, a statement and what vouches for it out. Pure: no clock, no network, no state.

Written from RFC 7515 and RFC 8785, narrower where they leave room. Whether the statement counts is
not decided here (policy/approval.py), nor who the key belongs to (approvers.py). Every failure is
one sentence of our own; what the text or a library says reaches nobody.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm

from taskmint.canonical import canonical
from taskmint.errors import Code, Denied, Unproven
from taskmint.model.approval import Outcome, Statement
from taskmint.model.spiffe import SpiffeId
from taskmint.model.task_id import parse_task_id
from taskmint.strict_json import Object, decode_object

from .approver_keys import ApproverKey, approver_key
from .jwt_bundle import decode_base64url
from .x509_context import X509Bundles, load_certificate
from .x509_svid import MAX_CERTIFICATES, completed, verify_x509_svid

TYPE: Final = "taskmint-approval+jws"
MAX_BYTES: Final = 16 * 1024  # a chain of certificates is in it
_SEGMENTS: Final = 3
_BY_KEY: Final = frozenset({"alg", "kid", "typ"})
_BY_CHAIN: Final = frozenset({"alg", "typ", "x5c"})
_MEMBERS: Final = frozenset(
    {"jti", "not_after", "outcome", "policy_digest", "scope_digest", "task"}
)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_JTI = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)
_LATEST: Final = 253402300799  # the last second that a datetime can hold


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified statement; it was made by a configured key, or by an X.509-SVID: `spiffe_id`."""

    statement: Statement
    key: ApproverKey
    spiffe_id: SpiffeId | None = None
    evidence: str = ""


def verify_statement(
    text: str, keys: Mapping[str, ApproverKey], bundles: X509Bundles, now: datetime
) -> Signed:
    """
    Verify a statement. `keys` are the approvers' by thumbprint, `bundles` those believed.

    1. Size, before anything is parsed; three base64url segments with one spelling each.
    2. The header: `typ` is ours, `alg`, and either `kid` or `x5c`; nothing else.
    3. The key: a configured one by its thumbprint, or that of a chain that is a good X.509-SVID
       now. Nothing in the statement brings a key of its own.
    4. The algorithm is the key's own, whatever the header would like.
    5. The signature.
    6. The payload: canonical JSON (RFC 8785) of exactly the six members, each of its form.

    Raises Denied(approval_invalid).
    """
    # 1.
    if len(text) > MAX_BYTES or not text.isascii():
        raise _invalid("it is larger than a statement can be, or not ASCII")
    segments = text.encode("ascii").split(b".")
    if len(segments) != _SEGMENTS:
        raise _invalid("it is not a compact JWS")
    try:
        protected, payload, signature = map(decode_base64url, segments)
        header = decode_object(protected)
    except ValueError:
        raise _invalid("it is not a compact JWS") from None
    # 2.
    if header.get("typ") != TYPE or header.keys() not in (_BY_KEY, _BY_CHAIN):
        raise _invalid(f"its header is not that of typ {TYPE}, with alg and kid or x5c alone")
    # 3.
    spiffe_id, evidence = None, ""
    if "kid" in header:
        key = keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        if key is None:
            raise _invalid("it is signed by no approver's key")
    else:
        key, spiffe_id, evidence = _by_chain(header["x5c"], bundles, now)
    # 4.
    if header["alg"] != key.algorithm:
        raise _invalid("its algorithm is not the one of its key")
    # 5.
    if not key.verifies(signature, segments[0] + b"." + segments[1]):
        raise _invalid("its signature is wrong")
    # 6.
    return Signed(_read(payload), key, spiffe_id, evidence)


def _by_chain(
    x5c: object, bundles: X509Bundles, now: datetime
) -> tuple[ApproverKey, SpiffeId, str]:
    """Verify an X.509-SVID (x509_svid.py); the root, which agents do not send, is added."""
    try:
        chain = _certificates(x5c)
        key = approver_key(load_certificate(chain[0]).public_key())
    except (ValueError, UnsupportedAlgorithm, Unproven):
        raise _invalid("its certificates cannot be read") from None
    for path in (chain, *completed(chain, bundles)):
        with suppress(Unproven):
            svid = verify_x509_svid(path, bundles, now)
            return key, svid.spiffe_id, svid.evidence
    raise _invalid("its certificates are no X.509-SVID that is believed here")


def _certificates(x5c: object) -> tuple[bytes, ...]:
    """Read RFC 7515, section 4.1.6: base64 with padding, not base64url. Raises ValueError."""
    if not isinstance(x5c, list) or not 0 < len(x5c) <= MAX_CERTIFICATES:
        raise ValueError("x5c is an array of certificates")
    try:
        return tuple(base64.b64decode(one, validate=True) for one in x5c)
    except (TypeError, binascii.Error):
        raise ValueError("x5c is an array of base64 texts") from None


def _read(payload: bytes) -> Statement:
    problem = "what it says is not a statement in canonical JSON"
    try:
        claims = decode_object(payload)
        statement, spelling = _statement(claims), canonical(claims)
    except ValueError:
        raise _invalid(problem) from None
    if spelling != payload:
        raise _invalid(problem)
    return statement


def _statement(claims: Object) -> Statement:
    texts = {name: claims[name] for name in _MEMBERS & claims.keys() if name != "not_after"}
    if claims.keys() != _MEMBERS or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("not the members of a statement")
    not_after = claims["not_after"]
    if type(not_after) is not int or not 0 < not_after <= _LATEST:
        raise ValueError("not_after is not whole seconds")
    if parse_task_id(texts["task"]) is None or not _JTI.fullmatch(texts["jti"]):
        raise ValueError("not a task's id, or not an id of a statement")
    if not all(_DIGEST.fullmatch(texts[name]) for name in ("scope_digest", "policy_digest")):
        raise ValueError("not a digest")
    return Statement(
        task=texts["task"],
        scope_digest=texts["scope_digest"],
        policy_digest=texts["policy_digest"],
        outcome=Outcome(texts["outcome"]),
        not_after=datetime.fromtimestamp(not_after, UTC),
        jti=texts["jti"],
    )


def _invalid(why: str) -> Denied:
    return Denied(
        Code.APPROVAL_INVALID,
        f"the statement proves nothing: {why}",
        fix="sign it again with the approver's own key; see docs/approvals.md",
    )
