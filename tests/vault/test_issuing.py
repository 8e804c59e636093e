"""What `taskmint vault check` says of the roles that make certificates: pure, and on a server."""

from typing import Final

import pytest

from taskmint.model.scope import Json
from taskmint.vault.issuing import issuing_findings, issuing_paths
from vault.engines import POLICY, TASK
from vault.ground import plan_from

MOUNTS: Final[dict[str, dict[str, Json]]] = {"pki": {"type": "pki"}, "ssh": {"type": "ssh"}}
PKI: Final[dict[str, Json]] = {"max_ttl": 600, "generate_lease": True}
SSH: Final[dict[str, Json]] = {"max_ttl": 600, "key_type": "ca", "allowed_users": "deploy"}
LISTED = "pki: {mount: pki, role: web, operation: sign, common_name: a, ttl: 10m, proof: crl}"
SIGNED = "ssh: {mount: ssh, role: ops, operation: sign, principals: [a], ttl: 10m}"
PASSWORD = "ssh: {mount: ssh, role: ops, operation: otp, ip: 10.0.0.1}"


def found(entitlement: str, role: dict[str, Json] | None, crl: dict[str, Json] | None) -> list[str]:
    """The findings for one entitlement, of these roles."""
    text = TASK.replace("NAME", "it").replace("ENTITLEMENT", entitlement)
    plan = plan_from(f"version: 1\ntasks:\n{text}")
    read = {"pki/roles/web": role, "ssh/roles/ops": role, "pki/config/crl": crl}
    return list(issuing_findings(plan, MOUNTS, read))


def test_a_role_that_allows_no_more_is_no_finding() -> None:
    """Each kind."""
    assert found(LISTED, PKI, {"disable": False}) == []
    assert found(SIGNED, SSH, None) == []
    assert found(PASSWORD, {"key_type": "otp"}, None) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_csr_sans": True}, "use_csr_sans is true: a caller's request would choose names"),
        ({"use_csr_common_name": True}, "use_csr_common_name is true"),
        ({"allow_any_name": True}, "every name can be certified"),
        ({"max_ttl": 0}, "it has no max_ttl, and the policy's ceiling is 600 s"),
        ({"max_ttl": 601}, "its max_ttl is 601 s, and the policy's ceiling is 600 s"),
        ({"generate_lease": False}, "nothing revokes what it makes"),
    ],
)
def test_findings_of_a_pki_role(changed: dict[str, Json], said: str) -> None:
    """Whatever a daemon that nobody trusts any more could do with it."""
    (finding,) = found(LISTED, {**PKI, **changed}, {})
    assert finding.startswith("pki role pki/web: ")
    assert said in finding


@pytest.mark.parametrize("field", ["disable", "auto_rebuild"])
def test_a_list_that_does_not_come_is_a_finding(field: str) -> None:
    """Then the proof would never come either."""
    (finding,) = found(LISTED, PKI, {field: True})
    assert "(proof: crl)" in finding


@pytest.mark.parametrize(
    ("entitlement", "changed", "said"),
    [
        (SIGNED, {"key_type": "otp"}, "its key_type is otp, and the policy needs ca"),
        (SIGNED, {"allowed_users": "*"}, "every principal can be signed"),
        (SIGNED, {"max_ttl": 3600}, "its max_ttl is 3600 s"),
        (PASSWORD, {}, "its key_type is ca, and the policy needs otp"),
    ],
)
def test_findings_of_an_ssh_role(entitlement: str, changed: dict[str, Json], said: str) -> None:
    """Both ways of using one."""
    (finding,) = found(entitlement, {**SSH, **changed}, None)
    assert said in finding


def test_a_role_or_engine_that_is_not_there() -> None:
    """Missing roles, and a mount of another engine."""
    assert found(LISTED, None, None) == ["pki role pki/web: does not exist"]
    plan = plan_from(POLICY)
    assert list(issuing_findings(plan, {}, {})) == []
    (finding, *_) = issuing_findings(plan, {"pki": {"type": "kv"}}, {})
    assert finding == "pki is a kv engine, and the policy says pki"


def test_each_is_read_once_it_is_known_what_it_is() -> None:
    """A KV mount is not asked for roles: that would be a secret's path."""
    plan = plan_from(POLICY)
    assert "pki/config/crl" in set(issuing_paths(plan, MOUNTS))
    assert set(issuing_paths(plan, {"pki": {"type": "kv"}})) == set()
