"""`taskmint vault check` on the embedded stack, with every kind of entitlement in its policy."""

import pytest

from taskmint.devstack.stack import Stack

from e2e.conftest import Ground
from e2e.ground import admin

pytestmark = pytest.mark.real
DAEMON_POLICY = "sys/policies/acl/taskmint-daemon"


async def check(stack: Stack) -> tuple[int, str]:
    """Run it with the root token."""
    return await admin(stack, "vault", "check", "--token-file", str(stack.paths.root_token))


async def test_check_passes_on_the_embedded_stack_and_names_a_line_widened_by_hand(
    ground: Ground,
) -> None:
    """P1: exit 0; after somebody adds a rule to the daemon's policy, 1, with the rule's line."""
    stack = ground.stack
    assert (await check(stack))[0] == 0

    async with stack.admin() as vault:
        text = (await vault.call("GET", DAEMON_POLICY)).body["data"]["policy"]
        added = 'path "database/creds/*" {\n  capabilities = ["read"]\n}\n'
        line = text.count("\n") + 2
        await vault.call("POST", DAEMON_POLICY, {"policy": f"{text}\n{added}"})
        try:
            code, said = await check(stack)
        finally:
            await vault.call("POST", DAEMON_POLICY, {"policy": text})
    assert code == 1
    assert f"policy taskmint-daemon, line {line} is wider than the plan" in said
    assert 'path "database/creds/*"' in said
    assert (await check(stack))[0] == 0
