"""
Coverage-guided fuzzing of what reads SPIFFE IDs, tokens, key sets and certificates.

    python tests/identity/fuzz.py TARGET CORPUS [libFuzzer options such as -max_total_time=60]

TARGET is ids, tokens, keys or chains; CORPUS is a directory that keeps what was interesting. Needs
atheris (CPython 3.11). Whatever is raised besides the documented refusals ends the run with the
input that did it.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import atheris  # type: ignore[import-untyped] # it ships no types

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["taskmint.identity", "taskmint.model"]):
    from taskmint.errors import Unproven
    from taskmint.identity.jwt_bundle import parse_jwt_bundle
    from taskmint.identity.jwt_svid import JwtRules, verify_jwt_svid
    from taskmint.identity.x509_context import parse_x509_bundle
    from taskmint.identity.x509_svid import verify_x509_svid
    from taskmint.model.der import split_der
    from taskmint.model.spiffe import SpiffeId

from identity.pki import root
from identity.signer import AUDIENCE, NOW, Authority, claims, encode, jwks

KEY: Final = Authority.ecdsa()
BUNDLES: Final = {"example.org": parse_jwt_bundle(jwks([KEY]))}
RULES: Final = JwtRules(AUDIENCE)
ROOT: Final = root("example.org")
ROOTS: Final = {"example.org": (ROOT.certificate,)}
GOOD: Final = ROOT.workload("spiffe://example.org/w").chain


def ids(data: bytes) -> None:
    """A SPIFFE ID, or ValueError; what is read is written as it was read."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        spiffe_id = SpiffeId.parse(text)
    except ValueError:
        return
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


def tokens(data: bytes) -> None:
    """Raw text, signed claims and headers alike: an SVID of ours, or Unproven."""
    header = encode(json.dumps({"alg": "ES256", "kid": "k1"}).encode())
    signed = f"{header}.{encode(data)}"
    forms = (
        data.decode("utf-8", "surrogateescape"),
        f"{encode(data)}.{encode(json.dumps(claims()).encode())}.AA",
        f"{signed}.{encode(KEY.sign(signed.encode(), 'ES256'))}",
    )
    for token in forms:
        try:
            svid = verify_jwt_svid(token, BUNDLES, RULES, NOW)
        except Unproven:
            continue
        assert svid.spiffe_id.trust_domain == "example.org"


def keys(data: bytes) -> None:
    """A JWK set, or ValueError."""
    try:
        parse_jwt_bundle(data)
    except ValueError:
        return


def chains(data: bytes) -> None:
    """Certificates, alone and above a good root: an SVID, or the documented refusals."""
    for read in (split_der, parse_x509_bundle):
        try:
            read(data)
        except ValueError:
            continue
    for chain in ((data,), (data, GOOD[1]), (GOOD[0], data)):
        try:
            verify_x509_svid(chain, ROOTS, datetime.now(UTC))
        except Unproven:
            continue
        assert chain == GOOD


TARGETS: Final[dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]]] = {
    "ids": (ids, (b"spiffe://example.org/a", b"spiffe://")),
    "tokens": (tokens, (KEY.token().encode(), json.dumps(claims()).encode(), b'{"alg":"ES256"}')),
    "keys": (keys, (jwks([KEY]), jwks([Authority.rsa()]))),
    "chains": (chains, GOOD),
}


def main(arguments: list[str]) -> Any:
    """Put the target's seeds into the corpus, and fuzz until libFuzzer's options say stop."""
    program, name, corpus, *options = arguments
    target, seeds = TARGETS[name]
    Path(corpus).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        target(seed)
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    atheris.Setup([program, corpus, *options], target)
    return atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
