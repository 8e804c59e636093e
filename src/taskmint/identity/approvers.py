"""
The config's approvers in; who made a statement out. The only place that builds an `Approver`.

An approver is derived from the key that verifies, from the X.509-SVID that does, or from the
kernel's word on who connected: never from a field. Whether the statement counts is not asked here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast

from taskmint.errors import Code, ConfigError, Denied, Finding
from taskmint.model.approval import Approver, Outcome, Statement, Vouched
from taskmint.model.scope import Json
from taskmint.model.spiffe import SpiffeId
from taskmint.ports import Clock

from .approver_keys import ApproverKey, read_jwk_set
from .statements import verify_statement
from .x509_context import X509Bundles

_FIX: Final = "give each to one approver; two people who share one would count as two"


@dataclass(frozen=True, slots=True)
class ApproverRecord:
    """One person as configured; `key_file` names the file that `key_set` was read from."""

    principal: str
    key_file: str = ""
    key_set: bytes | None = None
    groups: frozenset[str] = frozenset()
    uids: frozenset[int] = frozenset()
    spiffe_ids: frozenset[SpiffeId] = frozenset()


@dataclass(frozen=True, slots=True)
class Directory:
    """Everybody who may approve something, by what proves them."""

    people: Mapping[str, Approver]
    keys: Mapping[str, ApproverKey]
    by_key: Mapping[str, Approver]
    by_uid: Mapping[int, Approver]
    by_spiffe_id: Mapping[SpiffeId, Approver]


def directory_of(records: Iterable[ApproverRecord], file: str = "") -> Directory:
    """
    Read keys and make sure that each key, uid and SPIFFE ID is one person's.

    Raises ConfigError(config_invalid) with everything that is wrong; `file` is the config's.
    """
    findings: list[Finding] = []
    keys: dict[str, ApproverKey] = {}
    people: dict[str, Approver] = {}
    claims: defaultdict[str, list[str]] = defaultdict(list)
    held: dict[str, str] = {}
    for record in records:
        name = record.principal
        people[name] = Approver(name, record.groups, record.uids, record.spiffe_ids)
        try:
            own = read_jwk_set(record.key_set) if record.key_set is not None else ()
        except ValueError as error:
            findings.append(_finding(record.key_file, name, str(error), "see docs/approvals.md"))
            continue
        for key in own:
            keys[key.thumbprint] = key
            held[key.thumbprint] = name
        for claim in _claims(record, own):
            claims[claim].append(name)
    for claim, names in sorted(claims.items()):
        if len(names) > 1:
            problem = f"{claim} stands with {' and '.join(names)}"
            findings.append(_finding(file, names[-1], problem, _FIX))
    if findings:
        raise ConfigError(Code.CONFIG_INVALID, tuple(findings))
    return Directory(
        people,
        keys,
        {thumbprint: people[name] for thumbprint, name in held.items()},
        {uid: one for one in people.values() for uid in one.uids},
        {spiffe_id: one for one in people.values() for spiffe_id in one.spiffe_ids},
    )


def _claims(record: ApproverRecord, keys: Iterable[ApproverKey]) -> Iterator[str]:
    yield from sorted({f"key {key.thumbprint}" for key in keys})
    yield from sorted(f"uid {uid}" for uid in record.uids)
    yield from sorted(map(str, record.spiffe_ids))


def _finding(file: str, name: str, problem: str, fix: str) -> Finding:
    return Finding(file, 1, 1, f"approvals.approvers.{name}", problem, fix)


class Approvers:
    """
    Says who vouches for a statement. Fits ports.Approvers.

    `bundles` returns the X.509 bundles of the trust domains that are believed now; `local` lets
    the kernel's word on a uid stand for a signature.
    """

    def __init__(
        self,
        directory: Directory,
        bundles: Callable[[], X509Bundles],
        clock: Clock,
        *,
        local: bool = False,
    ) -> None:
        self._directory = directory
        self._bundles = bundles
        self._clock = clock
        self._local = local

    def replace(self, directory: Directory) -> None:
        """Believe other keys and people from now on."""
        self._directory = directory

    def verify(self, text: str) -> Vouched:
        """
        Verify a signed statement and say whose it is. Raises Denied(approval_invalid).

        A key that is somebody's stays theirs in a certificate: it makes no second person.
        """
        known = self._directory
        signed = verify_statement(text, known.keys, self._bundles(), self._clock.utcnow())
        thumbprint, proven = signed.key.thumbprint, signed.spiffe_id
        if proven is None:
            return Vouched(signed.statement, known.by_key[thumbprint], f"key:{thumbprint}")
        named = known.by_key.get(thumbprint) or known.by_spiffe_id.get(proven)
        approver = replace(named or Approver(str(proven)), proven_id=proven)
        return Vouched(signed.statement, approver, f"svid:{signed.evidence}")

    def vouch_local(self, uid: int, statement: Statement) -> Vouched:
        """Take the kernel's word for who made a statement. Raises Denied(approval_refused)."""
        approver = self._directory.by_uid.get(uid)
        if not self._local or approver is None:
            raise Denied(
                Code.APPROVAL_REFUSED,
                "an approval by user id alone is switched off"
                if not self._local
                else f"uid {uid} is no approver's",
                fix="sign the statement; or see approvals.local_uid in the daemon's config",
            )
        return Vouched(statement, approver, f"uid:{uid}")

    def current(self, vouched: Vouched) -> Approver | None:
        """Say who vouches for it by the directory of now; None when nobody does any more."""
        known, before = self._directory, vouched.approver
        kind, _, what = vouched.by.partition(":")
        if kind == "key":
            return known.by_key.get(what)
        if kind == "uid":
            return known.by_uid.get(int(what)) if self._local else None
        if before.proven_id is None:
            return None
        person = known.by_spiffe_id.get(before.proven_id) or known.people.get(before.principal)
        if person is None and before.principal == str(before.proven_id):
            person = Approver(before.principal)  # the certificate's, and nobody's in the config
        return None if person is None else replace(person, proven_id=before.proven_id)

    def recall(self, facts: Mapping[str, Json]) -> Vouched:
        """
        Take up what was verified before a restart, as our own ledger has it.

        Raises KeyError, TypeError or ValueError when the facts are not those of a statement.
        """
        told = cast("Mapping[str, Any]", facts)
        proven = told["proven_id"]
        return Vouched(
            Statement(
                task=str(told["about"]),
                scope_digest=str(told["scope_digest"]),
                policy_digest=str(told["policy_digest"]),
                outcome=Outcome(told["outcome"]),
                not_after=datetime.fromisoformat(told["not_after"]),
                jti=str(told["jti"]),
            ),
            Approver(
                principal=str(told["principal"]),
                groups=frozenset(told["groups"]),
                uids=frozenset(told["uids"]),
                spiffe_ids=frozenset(map(SpiffeId.parse, told["spiffe_ids"])),
                proven_id=SpiffeId.parse(proven) if proven else None,
            ),
            str(told["by"]),
        )
