"""`taskmint policy` and `taskmint config`: what they print, and how they leave."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from policy.asking import JOB, REPORT, REPOSITORY, load
from taskmint.cli.config import config
from taskmint.cli.policy import policy
from taskmint.daemon.files import read_policy_files
from taskmint.daemon.policy_watch import fingerprint
from taskmint.policy.json_schema import policy_json_schema

ENV = {"BAO_ADDR": "https://bao:8200", "SPIFFE_ENDPOINT_SOCKET": "unix:///run/agent.sock"}
CASES = """\
version: 1
given: {caller: spiffe://example.org/ns/orders/sa/nightly, task: report, parameters: {region: eu}}
cases:
  - {name: granted, expect: {decision: allow}}
"""


def invoke(command: click.Command, *arguments: str | Path) -> Result:
    """Run a command; an exception that is not an exit is a failure."""
    result = CliRunner().invoke(
        command, list(map(str, arguments)), env={**ENV, "TASKMINT_CONFIG": ""}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A policy directory: the report, and one case beside it."""
    (tmp_path / "report.yaml").write_text(REPORT)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "report.yaml").write_text(CASES)
    return tmp_path


def test_check_says_that_a_policy_is_fine(directory: Path) -> None:
    """With its digest; the tests beside it are no policy files."""
    result = invoke(policy, "check", directory)

    assert result.exit_code == 0
    assert result.output.startswith("fine: 1 enforced, 0 in shadow; digest ")
    told = json.loads(invoke(policy, "check", directory, "--output", "json").output)
    assert told == {
        "valid": True,
        "enforced": 1,
        "in_shadow": 0,
        "digest": load(REPORT).digest,
        "findings": [],
        "lints": [],
    }


def test_check_lists_what_is_wrong(directory: Path) -> None:
    """Exits 1; as text a line for each, as JSON the same findings."""
    (directory / "b.yaml").write_text(REPORT.replace("class: batch", "class: bach"))
    result = invoke(policy, "check", directory)
    told = invoke(policy, "check", directory, "--output", "json")

    assert result.exit_code == told.exit_code == 1
    first, second, last = result.output.splitlines()
    assert first.startswith(f"{directory}/b.yaml:5:12: tasks.report.class: ")
    assert second.startswith(f"{directory}/report.yaml:3:3: tasks.report: is defined twice; ")
    assert last == "2 findings; nothing was loaded"
    report = json.loads(told.output)
    assert report.keys() == {"valid", "findings", "lints"}
    assert report["valid"] is False
    assert report["findings"][0]["key"] == "tasks.report.class"
    assert report["findings"][0]["line"] == 5


def test_check_tells_doubts_and_refuses_them_when_strict(directory: Path) -> None:
    """Lints do not fail a policy, unless that is asked for."""
    (directory / "report.yaml").write_text(REPORT.replace("ro-{region}", "{job}"))
    lenient, strict = (
        invoke(policy, "check", directory),
        invoke(policy, "check", "--strict", directory),
    )

    assert (lenient.exit_code, strict.exit_code) == (0, 1)
    assert "the server can hold a task to database/creds/+ only" in lenient.output
    assert "(lint)" in lenient.output
    report = json.loads(invoke(policy, "check", directory, "--output", "json").output)
    assert (report["valid"], len(report["lints"])) == (True, 2)


def test_the_configuration_names_policy_and_classes(directory: Path) -> None:
    """With --config and no path its files are checked, by its clocks."""
    settings = directory / "taskmint.conf"
    settings.write_text(
        f"policy: {{files: [{directory}]}}\nclasses: {{batch: {{dead_man: 40m}}}}\n"
    )
    result = invoke(policy, "check", "--config", settings)

    assert result.exit_code == 1
    assert "the dead-man interval, 40m, is not below deadline.max, 30m" in result.output


def test_a_bad_configuration_is_no_finding_of_the_policy(directory: Path) -> None:
    """Exit 4, as of every other command."""
    settings = directory / "taskmint.conf"
    settings.write_text("polcy: {}\n")
    result = invoke(policy, "check", directory, "--config", settings)

    assert result.exit_code == 4
    assert "did you mean policy?" in result.output


def test_a_command_without_a_policy_says_what_to_name() -> None:
    """Usage: exit 2."""
    result = invoke(policy, "check")

    assert result.exit_code == 2
    assert "name policy files, or a configuration with --config" in result.output


def test_the_other_commands_exit_4_on_a_policy_that_does_not_load(directory: Path) -> None:
    """Every finding on stderr."""
    (directory / "report.yaml").write_text("version: 2")
    for arguments in (
        ["explain", "--as", JOB],
        ["who-can", "x"],
        ["enumerate"],
    ):
        result = invoke(policy, *arguments, "--policy", directory)
        assert result.exit_code == 4
        assert "version: is not one of the known words" in result.output
    assert invoke(policy, "test", directory).exit_code == 4
    assert invoke(policy, "diff", directory, directory).exit_code == 4


def test_test_passes_and_tells_what_was_not_exercised(directory: Path) -> None:
    """Cases are found beside the policy; coverage can be demanded."""
    result = invoke(policy, "test", directory, "--min-coverage", "100")
    told = json.loads(invoke(policy, "test", directory, "--output", "json").output)

    assert result.exit_code == 0
    assert result.output == "1 cases, 0 failed; 100% of the clauses exercised\n"
    assert told["coverage_percent"] == 100
    assert told["cases"][0]["passed"] is True


def test_test_shows_the_difference_and_the_trace(directory: Path) -> None:
    """Expected lines with a minus, what came with a plus; exit 1."""
    (directory / "tests" / "report.yaml").write_text(
        CASES.replace("decision: allow", "decision: deny")
    )
    result = invoke(policy, "test", directory)

    assert result.exit_code == 1
    assert result.output.splitlines()[:5] == [
        f"{directory}/tests/report.yaml:4: granted",
        "    decision:",
        "      - deny",
        "      + allow",
        f"      task: report, {directory}/report.yaml:3",
    ]
    assert result.output.endswith("1 cases, 1 failed; 100% of the clauses exercised\n")


def test_test_fails_below_the_coverage_that_is_demanded(directory: Path) -> None:
    """A clause that no case reached is named."""
    (directory / "tests" / "report.yaml").write_text(
        CASES.replace("region: eu", "region: cn").replace("decision: allow", "decision: deny")
    )
    result = invoke(policy, "test", directory, "--min-coverage", "51")

    assert result.exit_code == 1
    assert f"{directory}/report.yaml:3: report: no case exercised: granted" in result.output
    assert invoke(policy, "test", directory, "--min-coverage", "50").exit_code == 0


def test_test_of_a_file_takes_the_cases_of_its_name(directory: Path) -> None:
    """Those of its neighbours would ask for what is not loaded; without its own, all are taken."""
    file, tests = directory / "report.yaml", directory / "tests"
    (tests / "other.yaml").write_text(CASES.replace("report", "other"))

    assert invoke(policy, "test", file).output.startswith("1 cases, 0 failed;")
    assert invoke(policy, "test", directory).output.count("other.yaml") == 1
    (tests / "report.yaml").rename(tests / "reports.yaml")
    assert "2 cases, 1 failed;" in invoke(policy, "test", file).output


def test_test_without_cases_is_a_usage_error(directory: Path) -> None:
    """Silence is not success."""
    (directory / "tests" / "report.yaml").unlink()

    assert invoke(policy, "test", directory).exit_code == 2
    elsewhere = directory / "elsewhere.yaml"
    elsewhere.write_text(CASES)
    result = invoke(policy, "test", directory / "report.yaml", "--cases", elsewhere)
    assert result.exit_code == 0


def test_explain_grants_and_says_why(directory: Path) -> None:
    """The trace, the scope, exit 0."""
    result = invoke(
        policy, "explain", "--policy", directory, "--as", JOB, "--task", "report", "-p", "region=eu"
    )

    assert result.exit_code == 0
    assert result.output.splitlines()[-2:] == [
        "granted for 5m:",
        "    warehouse: GET database/creds/ro-eu",
    ]
    assert "    parameters: region = eu" in result.output


def test_explain_denies_and_says_why(directory: Path) -> None:
    """The clause that refused, exit 1; as JSON the same."""
    arguments = ("explain", "--policy", directory, "--as", JOB, "--task", "report", "--ttl", "9h")
    result = invoke(policy, *arguments, "-p", "region=eu")
    told = json.loads(invoke(policy, *arguments, "-p", "region=eu", "--output", "json").output)

    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "denied, ttl_exceeds_policy: the longest lifetime of this task is 30m"
    )
    assert told["decision"]["code"] == "ttl_exceeds_policy"
    assert told["decision"]["granted"] is False
    assert told["shadow"] is None


def test_explain_helps_with_a_misspelt_task(directory: Path) -> None:
    """The caller gets no such help (no oracle); the holder of the file may."""
    result = invoke(policy, "explain", "--policy", directory, "--as", JOB, "--task", "reprot")

    assert result.exit_code == 1
    assert "there is no task reprot; did you mean report?" in result.output


def test_explain_takes_every_fact(directory: Path) -> None:
    """Time, host, history, claims, the door, the bind, the approval; and shows the shadow."""
    when = (
        "    identity: {methods: [x509-svid]}\n"
        '    windows: [{from: "01:00", to: "02:00"}]\n'
        "    when: host.environment == 'prod' && history.grants == 1 && history.denials == 2 && "
        "history.processes == 3 && request.purpose == 'p' && request.ticket == 't' && "
        "request.context['a'] == 'b' && caller.uid == 7\n"
        "    approval: {from: ['group:a'], within: 1h}\n    deadline:"
    )
    text = REPORT.replace("    deadline:", when).replace(
        "version: 1", "version: 1\nhost_labels: [environment]"
    )
    text += REPORT.split("tasks:\n")[1].replace("report:", "report.shadow:\n    shadow: true")
    (directory / "report.yaml").write_text(text)
    facts = [
        "--task", "report", "-p", "region=eu", "--at", "2026-12-02T01:30:00", "--host",
        "environment=prod", "--grants", "1", "--denials", "2", "--processes", "3", "--purpose", "p",
        "--ticket", "t", "--context", "a=b", "--uid", "7", "--method", "x509-svid", "--bind",
        "parent",
    ]  # fmt: skip
    waiting = invoke(policy, "explain", "--policy", directory, "--as", JOB, *facts)
    approved = invoke(policy, "explain", "--policy", directory, "--as", JOB, "--approved", *facts)

    assert waiting.exit_code == 1
    assert "this task needs an approval (an approval would do)" in waiting.output
    assert approved.exit_code == 0
    assert "shadow, which grants nothing:" in approved.output
    told = invoke(
        policy,
        "explain",
        "--policy",
        directory,
        "--as",
        JOB,
        "--approved",
        *facts,
        "--output",
        "json",
    )
    assert json.loads(told.output)["decision"]["scope"]["warehouse"] == {
        "kind": "secret",
        "method": "GET",
        "path": "database/creds/ro-eu",
        "body": {},
    }


def test_explain_asks_as_a_node_that_binds_tokens_to_processes(directory: Path) -> None:
    """By uid when nothing is said, which is what a node does by default."""
    text = REPORT.replace("    deadline:", "    identity: {token: process}\n    deadline:")
    (directory / "report.yaml").write_text(text)
    arguments = (
        "explain",
        "--policy",
        directory,
        "--as",
        JOB,
        "--task",
        "report",
        "-p",
        "region=eu",
    )

    assert invoke(policy, *arguments).exit_code == 1
    assert invoke(policy, *arguments, "--token", "uid").exit_code == 1
    assert invoke(policy, *arguments, "--token", "process").exit_code == 0


def test_explain_lists_what_an_identity_may_ask_for(directory: Path) -> None:
    """Tasks, parameters and terms; exit 1 when there are none."""
    found = invoke(policy, "explain", "--policy", directory, "--as", JOB)
    none = invoke(policy, "explain", "--policy", directory, "--as", "spiffe://example.org/x")
    told = invoke(policy, "explain", "--policy", directory, "--as", JOB, "--output", "json")

    assert (found.exit_code, none.exit_code) == (0, 1)
    assert found.output == "report (team-orders@example.org)\n    region: one of: eu, us\n"
    assert none.output == "spiffe://example.org/x may ask for nothing\n"
    assert json.loads(told.output)[0]["parameters"] == {"region": "one of: eu, us"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--as", "nobody"],
        ["--as", JOB, "-p", "region"],
        ["--as", JOB, "--at", "noon"],
        ["--as", JOB, "--ttl", "1d"],
        ["--as", JOB, "--uid", "-1"],
    ],
)
def test_explain_refuses_what_it_cannot_read(directory: Path, arguments: list[str]) -> None:
    """Usage: exit 2."""
    assert invoke(policy, "explain", "--policy", directory, *arguments).exit_code == 2


def test_who_can_names_task_owner_and_patterns(directory: Path) -> None:
    """Exit 0 when somebody reaches the path, 1 when nobody does."""
    found = invoke(policy, "who-can", "database/creds/ro-eu", "--policy", directory)
    none = invoke(policy, "who-can", "database/creds/x", "--policy", directory)
    told = invoke(policy, "who-can", "database/creds/*", "--policy", directory, "--output", "json")

    assert (found.exit_code, none.exit_code) == (0, 1)
    assert found.output == (
        "GET database/creds/ro-eu  through report (team-orders@example.org)\n"
        "    spiffe://example.org/ns/orders/sa/{job}\n"
    )
    assert none.output == "nobody reaches database/creds/x\n"
    assert [each["request"] for each in json.loads(told.output)] == [
        "GET database/creds/ro-eu",
        "GET database/creds/ro-us",
    ]


def _with_tokens(directory: Path) -> None:
    scope = (
        "    scope:\n"
        "      admin: {token: {policy: deploy}}\n"
        "      own: {token: {paths: [{path: 'kv/data/{job}', capabilities: [read]}]}}\n"
    )
    (directory / "report.yaml").write_text(REPORT.split("    scope:")[0] + scope)


def test_who_can_tells_what_is_for_the_vault_admin_to_know(directory: Path) -> None:
    """Beside what was found, and instead of it; it finds nobody by itself."""
    _with_tokens(directory)
    who = "    spiffe://example.org/ns/orders/sa/{job}\n"
    beside = (
        "beside that, as far as the Vault admin lets it:\n"
        "whatever the policy deploy allows  through report (team-orders@example.org)\n"
        f"{who}    only with the token admin\n"
    )
    found = invoke(policy, "who-can", "kv/data/x", "--policy", directory)
    none = invoke(policy, "who-can", "kv/data", "--policy", directory)
    told = invoke(policy, "who-can", "kv/data/x", "--policy", directory, "--output", "json")

    assert (found.exit_code, none.exit_code) == (0, 1)
    assert found.output == (
        "read kv/data/{job}  through report (team-orders@example.org)\n"
        f"{who}    only with the token own\n{beside}"
    )
    assert none.output == f"nobody reaches kv/data\n{beside}"
    assert [(each["certain"], each["request"]) for each in json.loads(told.output)] == [
        (True, "read kv/data/{job}"),
        (False, "whatever the policy deploy allows"),
    ]


def test_enumerate_prints_what_comes_beside_a_request(directory: Path) -> None:
    """What is written for the task, and what a token that is handed over may do."""
    _with_tokens(directory)
    result = invoke(policy, "enumerate", "--policy", directory)
    told = invoke(policy, "enumerate", "--policy", directory, "--output", "json")
    name = "taskmint-hand-report"

    assert result.output == (
        "report\n"
        "    policy taskmint-task-report\n"
        f"    admin: POST auth/token/create/{name}.admin\n"
        "        whatever the policy deploy allows, with the token admin\n"
        f"    own: POST auth/token/create/{name}.own\n"
        f"        write sys/policies/acl/{name}.own.*, by the daemon, for one task\n"
        "        read kv/data/{job}, with the token own\n"
    )
    assert json.loads(told.output) == [
        {
            "task": "report",
            "token_role": "taskmint-task-report",
            "combinations": [
                {
                    "token_policy": "taskmint-task-report",
                    "parameters": {},
                    "requests": {
                        "admin": {
                            "method": "POST",
                            "path": f"auth/token/create/{name}.admin",
                            "body": {"policies": "deploy"},
                            "beside": [
                                {
                                    "does": "whatever the policy",
                                    "path": "deploy allows",
                                    "means": ["with the token admin"],
                                }
                            ],
                        },
                        "own": {
                            "method": "POST",
                            "path": f"auth/token/create/{name}.own",
                            "body": {"policies": f"{name}.own"},
                            "beside": [
                                {
                                    "does": "write",
                                    "path": f"sys/policies/acl/{name}.own.*",
                                    "means": ["by the daemon, for one task"],
                                },
                                {
                                    "does": "read",
                                    "path": "kv/data/{job}",
                                    "means": ["with the token own"],
                                },
                            ],
                        },
                    },
                }
            ],
        }
    ]


def test_diff_says_in_one_sentence_who_gained_what(directory: Path) -> None:
    """Exit 1 when anything widened, 0 when it narrowed or stayed."""
    wide = directory / "wide.conf"
    wide.write_text(REPORT.replace("[eu, us]", "[eu, us, cn]"))
    old = directory / "report.yaml"
    widened, narrowed = invoke(policy, "diff", old, wide), invoke(policy, "diff", wide, old)
    same = invoke(policy, "diff", old, old)
    told = json.loads(invoke(policy, "diff", old, wide, "--output", "json").output)

    assert (widened.exit_code, narrowed.exit_code, same.exit_code) == (1, 0, 0)
    assert widened.output == (
        "widened   spiffe://example.org/ns/orders/sa/{job} gained GET database/creds/ro-cn "
        "through report\n"
    )
    assert same.output == "nothing that decides has changed\n"
    assert told[0]["direction"] == "widened"


def test_enumerate_prints_the_set(directory: Path) -> None:
    """Each combination with its policy and requests."""
    result = invoke(policy, "enumerate", "--policy", directory)
    told = invoke(policy, "enumerate", "--policy", directory, "--output", "json")

    assert result.output.splitlines()[:3] == [
        "report region=eu",
        "    policy taskmint-task-report.eu",
        "    warehouse: GET database/creds/ro-eu",
    ]
    combination = json.loads(told.output)[0]["combinations"][1]
    assert combination["parameters"] == {"region": "us"}
    assert combination["requests"]["warehouse"]["path"] == "database/creds/ro-us"


def test_the_shipped_schema_is_the_printed_one() -> None:
    """Editors check against config/policy.d/taskmint-policy.schema.json."""
    shipped = REPOSITORY / "config" / "policy.d" / "taskmint-policy.schema.json"

    assert invoke(policy, "schema").output == shipped.read_text()


def test_the_schema_names_every_key_and_no_title() -> None:
    """Patterns and bounds as JSON Schema spells them; nothing that only Python knows."""
    schema = policy_json_schema()
    text = json.dumps(schema)
    definitions = schema["$defs"]
    assert isinstance(definitions, dict)
    definition = definitions["Definition"]
    assert isinstance(definition, dict)
    assert isinstance(definition["properties"], dict)

    assert {"owner", "class", "who", "when", "windows", "approval", "scope"} <= set(
        definition["properties"]
    )
    assert '"ge"' not in text
    assert '"null"' not in text
    assert '"title": "Definition' not in text
    assert '"minimum"' in text


@pytest.mark.parametrize("place", ["policy.d", "examples"])
def test_what_is_shipped_passes_its_own_tests(place: str) -> None:
    """Every clause exercised, nothing doubtful but what is said; examples are test inputs."""
    directory = REPOSITORY / "config" / place
    tested = invoke(policy, "test", directory, "--min-coverage", "100")
    checked = invoke(policy, "check", directory)

    assert tested.exit_code == 0, tested.output
    assert checked.exit_code == 0, checked.output


def test_config_check_and_show(tmp_path: Path) -> None:
    """Fine, wrong, and every value with its origin."""
    file = tmp_path / "taskmint.yaml"
    file.write_text("vault: {timeout: 5s}\n")
    checked = invoke(config, "check", "--config", file)
    shown = invoke(config, "show", "--config", file)
    told = json.loads(invoke(config, "show", "--config", file, "--output", "json").output)

    assert checked.output == f"{file} is fine\n"
    assert f"vault.timeout = 5s  ({file}:1)" in shown.output
    assert told["vault.address"] == {"value": "https://bao:8200", "origin": "BAO_ADDR"}
    assert json.loads(invoke(config, "check", "--config", file, "--output", "json").output) == {
        "valid": True,
        "findings": [],
    }


def test_config_that_is_wrong_exits_4(tmp_path: Path) -> None:
    """Every finding; a file that is not there is one sentence."""
    file = tmp_path / "taskmint.yaml"
    file.write_text("vault: {timeut: 5s}\n")
    checked = invoke(config, "check", "--config", file)
    told = json.loads(invoke(config, "check", "--config", file, "--output", "json").output)

    assert checked.exit_code == invoke(config, "show", "--config", file).exit_code == 4
    assert (
        checked.output == f"{file}:1:9: vault.timeut: is not a known key; did you mean timeout?\n"
    )
    assert told["findings"][0]["key"] == "vault.timeut"
    gone = invoke(config, "show", "--config", tmp_path / "gone.yaml")
    assert gone.exit_code == 4
    assert "gone.yaml: No such file or directory" in gone.output


def test_check_with_a_configuration_is_as_strict_as_its_daemon(
    directory: Path, tmp_path: Path
) -> None:
    """An emergency outside its door, and self-grant outside a namespace, load and are refused."""
    file = tmp_path / "taskmint.config"
    file.write_text("vault: {timeout: 5s}\n")
    emergency = REPORT.replace("    deadline:", "    break_glass: true\n    deadline:")
    paths = REPORT.replace(
        'secret: {mount: database, path: "creds/ro-{region}", proof: login}',
        'token: {paths: [{path: "kv/data/{region}", capabilities: [read]}]}',
    )
    for text, said in ((emergency, "is not their door"), (paths, "self-grant outside a namespace")):
        (directory / "report.yaml").write_text(text)
        refused = invoke(policy, "check", directory, "--config", file)

        assert invoke(policy, "check", directory).exit_code == 0
        assert (refused.exit_code, said in refused.output) == (1, True)


def test_what_an_editor_left_behind_is_no_policy(directory: Path) -> None:
    """A hidden file, for the reviewer as for the daemon."""
    (directory / ".report.yaml").write_text("no policy: at all\n")

    assert invoke(policy, "check", directory).exit_code == 0
    directory.chmod(0o700)
    (directory / "report.yaml").chmod(0o600)
    assert [Path(file).name for file, _ in read_policy_files([str(directory)])] == ["report.yaml"]
    assert [Path(str(file)).name for file, *_ in fingerprint([str(directory)])] == ["report.yaml"]
