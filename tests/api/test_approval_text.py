"""What approvers read is everything that they sign, and nothing in it poses as something else."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policy.keys import request, ssh_key
from taskmint.api.roles import Members, Role
from taskmint.canonical import digest
from taskmint.cli.approval_text import show_text
from taskmint.model.scope import RequestFacts

from api.server import admin_socket
from tasks.approvals import KEY, a_world
from tasks.world import caller

APPROVER = {Role.APPROVER: Members(uids=frozenset({os.getuid()}))}
DEPLOY = """
version: 1
tasks:
  deploy:
    owner: team-orders@example.org
    class: batch
    who: [spiffe://example.org/job]
    parameters: {region: {enum: [eu, us]}}
    approval: {from: ["group:leads"], quorum: 1, within: 30m}
    deadline: {default: 5m, max: 30m}
    ends: {bind: [peer, session], heartbeat: 60s}
    scope:
      web:
        pki: {mount: pki, role: web, operation: sign, common_name: web.example.org, ttl: 10m}
      host: {ssh: {mount: ssh, role: ops, operation: sign, principals: [deploy], ttl: 2m}}
      warehouse:
        database:
          mount: database
          connection: tasks
          creation: ["CREATE ROLE \\"{{name}}\\"", "GRANT\\n  orders_{region} TO \\"{{name}}\\""]
          revocation: ["DROP ROLE \\"{{name}}\\""]
      totals: {secret: {mount: kv, path: data/totals, method: POST, body: {num_uses: 3}}}
"""
NASTY = 'tidy\n  approved  ann, bob\x1b[2J\r \u202etxet\x9b31m "quoted" \\u001b\x7f'


async def shown(tmp_path: Path) -> dict[str, Any]:
    """A request with all there is, as the daemon shows it."""
    asked = RequestFacts(
        "deploy",
        {"region": "eu"},
        purpose=NASTY,
        ticket="INC-1\u2028NEW",
        context={"build.url": NASTY, "a = b": "c"},
        public_keys={"web": request(), "host": ssh_key()},
    )
    async with admin_socket(tmp_path, APPROVER, text=DEPLOY, world=a_world()) as http:
        view = await http.service.start(caller(), asked, KEY)
        return dict((await http.ask("GET", f"/v1/admin/approvals/{view.id}")).body)


def leaves(value: object) -> Iterator[object]:
    """Everything in the plan that holds nothing else."""
    if isinstance(value, Mapping) and value:
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def quoted(text: str) -> list[str]:
    """Every JSON string that stands in a text."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while (at := text.find('"', at)) >= 0:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


async def test_everything_that_is_signed_is_shown(tmp_path: Path) -> None:
    """Method, path, body, statements, names, keys, lifetimes, ends: each leaf of the plan."""
    reply = await shown(tmp_path)
    plan = reply["approval"]["plan"]
    text = show_text(reply)
    said = "".join(quoted(text))

    assert digest(plan) == reply["approval"]["scope_digest"]
    for leaf in leaves(plan):
        if isinstance(leaf, str):
            assert leaf in said or leaf in text, leaf
        else:
            assert json.dumps(leaf) in text
    for line in (
        "gives     web: POST pki/sign/web",
        'body.common_name = "web.example.org"',
        'body.creation_statements[0] = "CREATE ROLE \\"{{name}}\\""',
        'body.creation_statements[1] = "GRANT\\n"',
        '"  orders_eu TO \\"{{name}}\\""',
        'body.valid_principals = "deploy"',
        "body.num_uses = 3",
        'body.csr = "-----BEGIN CERTIFICATE REQUEST-----\\n"',
        "ceiling_seconds = 600.0",
        'bind[0] = "peer"',
        "heartbeat_seconds = 60.0",
        "break_glass = false",
        "for       300 s, on a lease of 60 s",
        f"plan      {reply['approval']['scope_digest']}",
        f"policy    {reply['approval']['policy_digest']}",
    ):
        assert line in text, line


async def test_what_a_caller_wrote_is_escaped_and_can_be_read_back(tmp_path: Path) -> None:
    """Nothing that a terminal acts on, no row that is not ours, nothing lost."""
    text = show_text(await shown(tmp_path))

    assert all(one.isprintable() or one == "\n" for one in text)
    rows = [line.split("  ")[0] for line in text.splitlines()]
    assert rows.count("approved") == 1
    assert rows.count("NEW") == 4  # entitlements never given before, and not the ticket's word
    assert "\\u001b[2J" in text
    assert "\\u202etxet" in text
    assert "\\\\u001b" in text  # written by the caller as six letters, and not one control
    assert NASTY in "".join(quoted(text))
    assert "INC-1\u2028NEW" in "".join(quoted(text))
    assert 'context   "build.url" = "tidy\\n"' in text
    assert '"a = b" = "c"' in text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def reply_with(body: object) -> dict[str, Any]:
    """A reply whose one entitlement has this body."""
    item = {"method": "POST", "mount": "m", "path": "p", "body": body}
    scope = {"lifetime_seconds": 1, "dead_man_seconds": 1, "entitlements": {"e": item}, "ends": {}}
    facts: dict[str, object] = {"parameters": {}, "context": {}}
    who = {"spiffe_id": "spiffe://a/b", "uid": 1, "method": "m"}
    plan = {"caller": who, "definition": "d", "purpose": "", "ticket": None, "scope": scope}
    shown = {"plan": plan | facts, "quorum": 1, "approvers": ["user:a"], "until": "u", "why": ""}
    digests = {"scope_digest": "d", "policy_digest": "d"}
    unusual = {"starts": 0, "before": {}, "never": []}
    told = {"id": "tm", "state": "s", "approved_by": [], "unusual": unusual}
    return {**told, "approval": shown | digests}


@given(JSON, JSON)
def test_two_bodies_that_differ_never_look_the_same(one: object, other: object) -> None:
    """And neither makes a terminal do anything."""
    texts = [show_text(reply_with(body)) for body in (one, other)]
    assert (texts[0] == texts[1]) == (json.dumps(one) == json.dumps(other))
    assert all(letter.isprintable() or letter == "\n" for letter in texts[0])
