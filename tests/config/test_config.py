"""The daemon's config: one file and the environment in, everything wrong at once out."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from taskmint.config import DEFAULT_CLASSES, Config, effective_settings, load_config
from taskmint.errors import Code, ConfigError
from taskmint.model.clocks import ClassClocks
from taskmint.yaml_document import Mapping as YamlMapping
from taskmint.yaml_document import Node, parse_document

SHIPPED = Path(__file__).parents[2] / "config" / "taskmint.yaml"
ENV = {"BAO_ADDR": "https://bao:8200", "SPIFFE_ENDPOINT_SOCKET": "unix:///run/agent.sock"}
MINIMAL = "vault: {address: https://vault:8200}\nidentity: {workload_api: unix:///run/agent.sock}\n"


def load(text: str, env: Mapping[str, str] | None = None) -> Config:
    """Load text as c.yaml."""
    return load_config("c.yaml", text.encode(), env or {})


def found(text: str, env: Mapping[str, str] | None = None) -> list[str]:
    """The findings of a text that must not load."""
    with pytest.raises(ConfigError) as caught:
        load(text, env)
    assert caught.value.code is Code.CONFIG_INVALID
    return [str(finding) for finding in caught.value.findings]


def model_keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key of the schema, dotted; the keys of free mappings are theirs to choose."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from model_keys(inner, f"{above}{name}.")
        else:
            yield above + name


def file_keys(node: Node, known: frozenset[str], above: str = "") -> Iterator[str]:
    """Every key of a file, as deep as the schema goes."""
    assert isinstance(node, YamlMapping)
    for name, value in node.entries.items():
        if above + name in known:
            yield above + name
        else:
            yield from file_keys(value, known, f"{above}{name}.")


def uncommented() -> str:
    """The shipped file with what is off switched on: `#key:`; prose has one space after `#`."""
    return re.sub(r"^( *)#(?=(?:  )*[a-z_]+:)", r"\1", SHIPPED.read_text(), flags=re.MULTILINE)


def test_the_shipped_file_is_the_defaults() -> None:
    """What stands in config/taskmint.yaml unchanged changes nothing."""
    shipped = load(SHIPPED.read_text(), ENV)
    bare = load("{}", ENV)

    assert shipped.class_clocks() == bare.class_clocks() == dict(DEFAULT_CLASSES)
    assert shipped.model_copy(update={"classes": {}}) == bare


def test_every_key_is_documented_in_place() -> None:
    """The key set of the shipped file, with what is commented out, equals the schema's."""
    known = frozenset(model_keys(Config))
    document = parse_document("taskmint.yaml", uncommented().encode())
    assert document.root is not None

    assert sorted(file_keys(document.root, known)) == sorted(known)


def test_what_is_commented_out_is_valid_when_switched_on() -> None:
    """An admin who removes a comment sign gets a file that loads."""
    config = load(uncommented())

    assert config.node.id == "web-1"
    assert config.vault.address == "https://vault.example.org:8200"
    assert config.vault.namespace == "taskmint"
    assert config.vault.ca_file == "/etc/taskmint/vault-ca.pem"
    assert config.metrics.listen == "127.0.0.1:9464"
    assert config.tracing.endpoint == "http://127.0.0.1:4318/v1/traces"
    assert config.identity.workload_api == "unix:///run/spire/agent/public/api.sock"


def test_values_have_their_types() -> None:
    """Durations are timedeltas, modes integers, lists tuples."""
    config = load(
        MINIMAL + 'sockets: {task_mode: "0600", task_group: ""}\n'
        "ledger: {retention: 48h, row_retention: 96h}\n"
        "admin: {roles: {operator: {uids: [0, 1000], groups: [ops]}}}\non_stop: revoke\n"
    )

    assert config.sockets.task_mode == 0o600
    assert config.sockets.task_group == ""
    assert config.ledger.retention == timedelta(hours=48)
    assert config.ledger.row_retention == timedelta(hours=96)
    assert config.admin.roles.operator.uids == (0, 1000)
    assert config.admin.roles.operator.groups == ("ops",)
    assert config.on_stop == "revoke"


def test_a_config_is_frozen() -> None:
    """What was checked cannot be changed afterwards."""
    config = load(MINIMAL)

    with pytest.raises(ValidationError):
        object.__getattribute__(config.vault, "__setattr__")("address", "http://elsewhere")


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({"VAULT_ADDR": "https://v:8200"}, "https://v:8200"),
        ({"VAULT_ADDR": "https://v:8200", "BAO_ADDR": "https://b:8200"}, "https://b:8200"),
        ({"VAULT_ADDR": "https://v:8200", "BAO_ADDR": ""}, "https://v:8200"),
    ],
)
def test_the_vault_address_falls_back_to_the_environment(
    env: Mapping[str, str], address: str
) -> None:
    """BAO_ADDR, then VAULT_ADDR."""
    assert load("identity: {workload_api: unix:///a}", env).vault.address == address


def test_the_file_wins_over_the_environment() -> None:
    """For both keys."""
    config = load(MINIMAL, ENV)

    assert config.vault.address == "https://vault:8200"
    assert config.identity.workload_api == "unix:///run/agent.sock"


@pytest.mark.parametrize(
    ("variable", "value", "key"),
    [
        ("VAULT_NAMESPACE", "team", "vault.namespace"),
        ("BAO_NAMESPACE", "team", "vault.namespace"),
        ("VAULT_CACERT", "/ca.pem", "vault.ca_file"),
        ("BAO_CACERT", "/ca.pem", "vault.ca_file"),
        ("TASKMINT_SOCKET", "/run/t.sock", "sockets.task"),
        ("TASKMINT_ADMIN_SOCKET", "/run/a.sock", "sockets.admin"),
    ],
)
def test_the_usual_variables_fill_in_what_the_file_leaves_out(
    variable: str, value: str, key: str
) -> None:
    """By the names that Vault, OpenBao and our own commands know; a finding names the variable."""
    env = {variable: value}
    shown = effective_settings(load(MINIMAL, env), "c.yaml", MINIMAL.encode(), env)

    assert [(each.value, each.origin) for each in shown if each.key == key] == [(value, variable)]
    (only,) = found(MINIMAL, {variable: "no/thing\n"})
    assert f"{key}: (from {variable})" in only


def test_nothing_else_is_taken_from_the_environment() -> None:
    """A stray VAULT_TOKEN changes nothing: no secret comes in by the environment."""
    stray = {"VAULT_TOKEN": "x", "BAO_TOKEN": "x", "VAULT_ROLE_ID": "y", "TASKMINT_X": "y"}

    assert load(MINIMAL, stray) == load(MINIMAL)


def test_what_nobody_says_is_missing() -> None:
    """With the names of the variables that would have filled it."""
    assert found("{}") == [
        "c.yaml:1:1: identity.workload_api: is missing; write it, or set SPIFFE_ENDPOINT_SOCKET",
        "c.yaml:1:1: vault.address: is missing; write it, or set BAO_ADDR or VAULT_ADDR",
    ]


def test_a_bad_variable_is_blamed_by_name() -> None:
    """Nobody searches the file for what the environment said."""
    (only,) = found("{}", {**ENV, "BAO_ADDR": "bao:8200"})

    assert only.startswith("c.yaml:1:1: vault.address: (from BAO_ADDR) must be https://HOST:PORT")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vualt: {}", "1:1: vualt: is not a known key; did you mean vault?"),
        ("vault: {auth: {rol: x}}", "1:16: vault.auth.rol: is not a known key; did you mean role?"),
        ("vault: []", "1:8: vault: must be a mapping; write key: value pairs"),
        ("node: {id: Web}", "1:12: node.id: must be at most 20 lower-case letters, digits and inn"),
        ("node: {labels: {Env: prod}}", '1:17: node.labels.Env: "Env" will not do; write lower-'),
        (
            "node: {labels: {tier: 1}}",
            "1:23: node.labels.tier: must be text, and YAML reads this a",
        ),
        ("sockets: {task: task.sock}", "1:17: sockets.task: must be an absolute path; begin it wi"),
        (f"sockets: {{task: /{'x' * 107}}}", "1:17: sockets.task: is longer than 107 bytes; choos"),
        (
            "peer: {pidfd: maybe}",
            "1:15: peer.pidfd: is not one of the known words; write 'prefer' ",
        ),
        ("identity: {trust_domains: [A]}", "1:28: identity.trust_domains[0]: is not a trust doma"),
        ("identity: {trust_domains: [a/b]}", "1:28: identity.trust_domains[0]: is not a trust do"),
        ("identity: {workload_api: 'tcp:x'}", "1:26: identity.workload_api: must be a Unix socke"),
        ("identity: {max_lifetime: 0s}", "1:26: identity.max_lifetime: must be longer than nothi"),
        ("identity: {max_lifetime: 900ms}", "1:26: identity.max_lifetime: 900ms is no whole numb"),
        ("identity: {leeway: 1500ms}", "1:20: identity.leeway: 1500ms is no whole number of se"),
        ("identity: {max_token_bytes: 8193}", "1:29: identity.max_token_bytes: is too large; wri"),
        ("identity: {leeway: 31s}", "1:11: identity: leeway is longer than 30s; write 30s or "),
        (
            "sockets: {task: /run/one.sock, admin: /run/one.sock}",
            "1:10: sockets: task and admin are the same path; name two",
        ),
        ("limits: {body_bytes: 262145}", "1:22: limits.body_bytes: is too large; write at most "),
        ("vault: {address: 'http://10.0.0.1'}", "1:18: vault.address: would send tokens in clear"),
        ("vault: {address: 'https://u:p@h'}", "1:18: vault.address: must be https://HOST:PORT"),
        ("vault: {address: 'https://h/v1'}", "1:18: vault.address: must be https://HOST:PORT"),
        ("vault: {address: 'https://h:99999'}", "1:18: vault.address: must be https://HOST:PORT"),
        ("vault: {namespace: /a/}", '1:20: vault.namespace: "/a/" will not do; write the path wit'),
        ("policy: {files: []}", "1:17: policy.files: is too short; write at least 1"),
        ("limits: {tasks: 0}", "1:17: limits.tasks: is too small; write at least 1"),
        (
            "metrics: {listen: '0.0.0.0:9464'}",
            "1:19: metrics.listen: must be a loopback address an",
        ),
        ("metrics: {listen: 'localhost:x'}", "1:19: metrics.listen: must be a loopback address an"),
        ("metrics: {listen: '[::1]:65536'}", "1:19: metrics.listen: must be a loopback address an"),
        ("classes: {mine: {max: 1h}}", "1:17: classes.mine: is a class of your own without clocks"),
        ("classes: {ci: {dead_man: 500ms}}", "1:26: classes.ci.dead_man: 500ms is no whole numb"),
        ("classes: {ci: {max: 60s}}", "1:15: classes.ci: has clocks that contradict each other; k"),
        ("classes: {ci: {default: 2h}}", "1:15: classes.ci: has clocks that contradict each other"),
        (
            "on_stop: no",
            "1:10: on_stop: must be text, and YAML reads this as true or false; write ",
        ),
    ],
)
def test_each_mistake_is_found_at_its_place(text: str, expected: str) -> None:
    """File, line, column, key, what is wrong, and what to write."""
    (only,) = found(text, ENV)

    assert only.startswith(f"c.yaml:{expected}"), only


@pytest.mark.parametrize(
    "address",
    [
        "https://vault.example.org",
        "https://vault.example.org:8200",
        "http://127.0.0.1:8200",
        "http://localhost:8200",
        "http://[::1]:8200",
        "https://[2001:db8::1]:8200",
        "unix:///run/bao/proxy.sock",
    ],
)
def test_addresses_that_keep_tokens_private_are_accepted(address: str) -> None:
    """HTTPS anywhere, HTTP on loopback, a Unix socket; a trailing slash is dropped."""
    assert load("{}", {**ENV, "BAO_ADDR": address}).vault.address == address
    if address.startswith("http"):
        assert load("{}", {**ENV, "BAO_ADDR": address + "/"}).vault.address == address


def test_classes_change_and_add_clocks() -> None:
    """What a class leaves out keeps the built-in value; a new one says everything."""
    clocks = load(
        "classes:\n  ci: {max: 2h, heartbeat: 30s}\n"
        "  drill: {dead_man: 6s, default: 1m, max: 5m}\n",
        ENV,
    ).class_clocks()

    minute = timedelta(minutes=1)
    assert clocks["ci"] == ClassClocks(minute, 10 * minute, 120 * minute, minute / 2)
    assert clocks["drill"] == ClassClocks(minute / 10, minute, 5 * minute)
    assert clocks["batch"] == DEFAULT_CLASSES["batch"]


def test_the_built_in_clocks_are_the_published_ones() -> None:
    """docs and decisions name these numbers."""
    published = (
        "ci 60s/10m/1h, batch 60s/15m/6h, agent 60s/5m/1h, human 5m/30m/4h, service 10m/1h/24h"
    )
    written = {
        name: (clocks.dead_man, clocks.default, clocks.max)
        for name, clocks in DEFAULT_CLASSES.items()
    }
    unit = {"s": 1, "m": 60, "h": 3600}
    expected = {
        name: tuple(timedelta(seconds=int(text[:-1]) * unit[text[-1]]) for text in times.split("/"))
        for name, times in (entry.split(" ") for entry in published.split(", "))
    }

    assert written == expected


def test_effective_settings_say_where_each_value_came_from() -> None:
    """A line of the file, a variable, or the default."""
    text = b"vault:\n  timeout: 5s\nclasses: {ci: {max: 2h}}\n"
    config = load_config("c.yaml", text, ENV)
    settings = {each.key: each for each in effective_settings(config, "c.yaml", text, ENV)}

    assert (settings["vault.timeout"].value, settings["vault.timeout"].origin) == ("5s", "c.yaml:2")
    assert settings["vault.address"].origin == "BAO_ADDR"
    assert settings["vault.auth.method"].origin == "default"
    assert (settings["classes.ci.max"].value, settings["classes.ci.max"].origin) == (
        "2h",
        "c.yaml:3",
    )
    assert set(settings) >= frozenset(model_keys(Config)) - {"classes"}


def test_an_unreadable_file_is_a_config_error() -> None:
    """Not a traceback."""
    assert len(found("a: [", ENV)) == 1
    assert found("[]", ENV) == ["c.yaml:1:1: must be a mapping; write key: value pairs"]


def test_approvers_and_notices_are_read() -> None:
    """People by name; a webhook comes with its key, a command with the path of a program."""
    config = load(
        f"{MINIMAL}approvals: {{approvers: {{ann@example.org: {{keys: /a.json, groups: [leads], "
        "uids: [7], spiffe_ids: ['spiffe://example.org/ann']}}}\n"
        "notices: {webhook: 'https://chat.example.org/x?y=1', webhook_key_file: /k, "
        "command: [/bin/tell, them]}\n"
    )
    ann = config.approvals.approvers["ann@example.org"]

    assert (ann.keys, ann.groups, ann.uids) == ("/a.json", ("leads",), (7,))
    assert ann.spiffe_ids == ("spiffe://example.org/ann",)
    assert config.notices.command == ("/bin/tell", "them")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("notices: {webhook: 'https://a/x'}", "belong together"),
        ("notices: {webhook: 'http://a/x', webhook_key_file: /k}", "would be sent in clear"),
        ("notices: {webhook: 'ftp://a/x', webhook_key_file: /k}", "must be https"),
        ("notices: {command: [tell]}", "begins with the path of a program"),
        ("approvals: {approvers: {'group:a': {}}}", "write a name as policies do"),
        ("approvals: {approvers: {ann: {groups: ['a b']}}}", "write a name as policies do"),
        ("approvals: {approvers: {ann: {spiffe_ids: [x]}}}", "spiffe://"),
    ],
)
def test_approvers_and_notices_that_will_not_do(text: str, problem: str) -> None:
    """Each is found, with what to write."""
    (finding,) = found(f"{MINIMAL}{text}\n")

    assert problem in finding
