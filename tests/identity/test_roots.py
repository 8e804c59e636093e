"""Which roots OpenSSL is given: none that it may take for another domain's."""

from typing import Final

import pytest
from cryptography import x509

from identity.pki import Signed, der, impostor, root
from taskmint.identity.roots import roots_for_openssl

OURS: Final = root("example.org", name="SPIRE")


def given(**bundles: bytes) -> set[str]:
    """Names of the domains whose root is given beside ours."""
    known = {name: (x509.load_der_x509_certificate(one),) for name, one in bundles.items()}
    roots = list(roots_for_openssl("ours", {**known, "ours": (OURS.certificate,)}))

    assert roots[0] == der(OURS.certificate)
    return {name for name, one in bundles.items() if one in roots[1:]}


@pytest.mark.parametrize("spelling", ["SPIRE", "spire", " Spire"])
def test_a_root_that_looks_like_ours_is_not_given(spelling: str) -> None:
    """OpenSSL compares names by letter, and goes on by key id; whose comes first is ours to say."""
    assert given(partner=impostor(OURS, spelling)) == set()


def test_a_root_that_looks_like_an_intermediate_of_ours_is_not_given() -> None:
    """Under an upstream authority every workload's chain has one, and so has our own SVID's."""
    ours = OURS.intermediate("example.org")
    partner = root("partner.test")
    bundles = {
        "partner": (
            x509.load_der_x509_certificate(impostor(ours, "EXAMPLE.org intermediate")),
            partner.certificate,
        )
    }

    def roots(*intermediates: x509.Certificate) -> list[bytes]:
        return list(roots_for_openssl("ours", bundles, intermediates))

    assert roots() == [der(one) for one in bundles["partner"]]
    assert roots(ours.certificate) == [der(partner.certificate)]
    own = {**bundles, "ours": (OURS.certificate, ours.certificate)}  # a root and an intermediate
    assert list(roots_for_openssl("ours", own, (ours.certificate,)))[:2] == [
        der(OURS.certificate),
        der(ours.certificate),
    ]


def test_roots_of_one_name_and_other_keys_are_told_apart() -> None:
    """SPIRE gives every domain's authority the same name; the key id tells them apart."""
    assert given(partner=der(root("partner.test", name="SPIRE").certificate)) == {"partner"}


def test_between_partners_the_first_by_name_is_given() -> None:
    """Somebody must be, and the same with every message."""
    theirs = root("b.test")
    assert given(b=impostor(theirs, "B.test"), a=der(theirs.certificate)) == {"a"}


def test_a_domains_own_roots_do_not_shut_each_other_out() -> None:
    """An authority that is renewed under its key stands twice in its bundle."""
    renewed: Signed = OURS.intermediate("example.org", name="SPIRE", key=OURS.key)
    both = (OURS.certificate, renewed.certificate)

    assert list(roots_for_openssl("ours", {"ours": both})) == [der(one) for one in both]
    assert len(list(roots_for_openssl("ours", {"ours": both, "b": both[:1]}))) == 2
