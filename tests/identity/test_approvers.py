"""Approvers: derived from what verifies, one person for each key, uid and SPIFFE ID."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from identity.approver import Signer, claims, record
from identity.pki import root
from identity.test_statements import chain
from taskmint.errors import Code, ConfigError, Denied
from taskmint.identity.approvers import ApproverRecord, Approvers, directory_of
from taskmint.model.approval import Approver
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.approval import is_same_person
from taskmint.tasks.request_entries import vouched_facts

from fakes.clock import SteppedClock

ANN, BOB = Signer.ed25519(), Signer.ecdsa()
LATER = int((datetime.now(UTC) + timedelta(hours=1)).timestamp())
AUTHORITY = root("example.org")


def approvers(*records: ApproverRecord, local: bool = False) -> Approvers:
    """Approvers who also believe one trust domain."""
    bundles = {"example.org": (AUTHORITY.certificate,)}
    return Approvers(directory_of(records), lambda: bundles, SteppedClock(), local=local)


def findings(*records: ApproverRecord) -> list[str]:
    """What is wrong with a config."""
    with pytest.raises(ConfigError) as caught:
        directory_of(records, "taskmint.yaml")
    assert caught.value.code is Code.CONFIG_INVALID
    return [str(finding) for finding in caught.value.findings]


def test_the_approver_is_whose_key_verifies() -> None:
    """Two keys of one person are one principal; who it is stands in no field."""
    second = Signer.rsa()
    known = approvers(
        record("ann@example.org", ANN, second, groups=("leads",)), record("bob", BOB, uids=(7,))
    )
    by = {
        name: known.verify(signer.sign(claims(LATER)))
        for name, signer in (("ann", ANN), ("ann again", second), ("bob", BOB))
    }

    assert by["ann"].approver == by["ann again"].approver
    assert by["ann"].approver.groups == {"leads"}
    assert by["bob"].approver.principal == "bob"
    assert by["bob"].approver.uids == {7}
    assert by["bob"].by == f"key:{BOB.public.thumbprint}"


def test_a_key_of_two_principals_is_a_config_error() -> None:
    """Nobody could tell who signed."""
    (finding,) = findings(record("ann", ANN), record("bob", BOB, ANN))

    assert f"key {ANN.public.thumbprint} stands with ann and bob" in finding


def test_two_principals_of_one_uid_or_spiffe_id_are_a_config_error() -> None:
    """They would be one person who counts twice."""
    ann = "spiffe://example.org/ann"
    found = findings(
        record("ann", ANN, uids=(1000,), spiffe_ids=(ann,)),
        record("bob", BOB, uids=(1000,), spiffe_ids=(ann,)),
    )

    assert len(found) == 2
    assert "spiffe://example.org/ann stands with ann and bob" in found[0]
    assert "uid 1000 stands with ann and bob" in found[1]


def test_a_key_file_that_cannot_be_read_is_named() -> None:
    """With the file and what is wrong in it."""
    (finding,) = findings(ApproverRecord("ann", "/etc/ann.json", b"{}"))

    assert finding.startswith("/etc/ann.json:1:1: approvals.approvers.ann: a JWK set has")


def test_an_svid_is_the_person_the_config_gives_it_to() -> None:
    """Else its SPIFFE ID is the principal; either way the ID is proven."""
    leaf = AUTHORITY.workload("spiffe://example.org/ann")
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    text = Signer(leaf.key).sign(claims(LATER), kid=None, x5c=chain(leaf))
    mapped = approvers(record("ann", ANN, spiffe_ids=("spiffe://example.org/ann",))).verify(text)
    unknown = approvers(record("ann", ANN)).verify(text)

    assert mapped.approver.principal == "ann"
    assert unknown.approver.principal == "spiffe://example.org/ann"
    proven = SpiffeId("example.org", "/ann")
    assert mapped.approver.proven_id == unknown.approver.proven_id == proven
    assert mapped.by.startswith("svid:")


def test_a_key_in_a_certificate_makes_no_second_person() -> None:
    """A configured key is its owner's, whatever SPIFFE ID a certificate gives it."""
    leaf = AUTHORITY.workload("spiffe://example.org/ann")
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    signer = Signer(leaf.key)
    known = approvers(record("ann", signer))
    by_key = known.verify(signer.sign(claims(LATER))).approver
    by_svid = known.verify(signer.sign(claims(LATER), kid=None, x5c=chain(leaf))).approver

    assert by_svid.principal == by_key.principal == "ann"
    assert is_same_person(by_key, by_svid)
    assert by_svid.proven_id == SpiffeId("example.org", "/ann")


def test_who_vouches_is_asked_of_the_directory_of_now() -> None:
    """By key, uid or certificate: a person as written down now, or nobody any more."""
    leaf = AUTHORITY.workload("spiffe://example.org/eve")
    assert isinstance(leaf.key, ec.EllipticCurvePrivateKey)
    eve = Signer(leaf.key)
    people = (record("ann", ANN, uids=(7,)), record("bob", BOB), record("eve", eve))
    known = approvers(*people, local=True)
    by_key = known.verify(ANN.sign(claims(LATER)))
    by_uid = known.vouch_local(7, by_key.statement)
    by_svid = known.verify(eve.sign(claims(LATER), kid=None, x5c=chain(leaf)))
    for one in (by_key, by_uid, by_svid):
        assert known.current(one) == one.approver
        assert known.current(known.recall(vouched_facts(one))) == one.approver

    known.replace(directory_of((record("ann", Signer.ed25519(), uids=(8,)), record("bob", ANN))))
    assert known.current(by_key) == Approver("bob")
    assert known.current(by_uid) is None
    assert known.current(by_svid) is None
    assert approvers(*people).current(by_uid) is None, "switched off since"

    stranger = approvers().verify(eve.sign(claims(LATER), kid=None, x5c=chain(leaf)))
    assert approvers().current(stranger) == stranger.approver
    mapped = approvers(record("eve", spiffe_ids=("spiffe://example.org/eve",))).current(stranger)
    assert mapped is not None
    assert mapped.principal == "eve"


def test_a_uid_approves_only_where_that_is_switched_on() -> None:
    """Off by default; and then only a uid that is somebody's."""
    people = (record("ann", ANN, uids=(1001,)),)
    statement = approvers(*people).verify(ANN.sign(claims(LATER))).statement
    vouched = approvers(*people, local=True).vouch_local(1001, statement)

    assert (vouched.approver.principal, vouched.by) == ("ann", "uid:1001")
    for known, uid, why in (
        (approvers(*people), 1001, "switched off"),
        (approvers(*people, local=True), 1002, "no approver's"),
    ):
        with pytest.raises(Denied, match=why) as caught:
            known.vouch_local(uid, statement)
        assert caught.value.code is Code.APPROVAL_REFUSED


def test_a_replaced_directory_holds_from_then_on() -> None:
    """A key that was taken out proves nothing any more."""
    known = approvers(record("ann", ANN))
    known.verify(ANN.sign(claims(LATER)))
    known.replace(directory_of((record("ann", BOB),)))

    known.verify(BOB.sign(claims(LATER)))
    with pytest.raises(Denied, match="no approver's key"):
        known.verify(ANN.sign(claims(LATER)))
