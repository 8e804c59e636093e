"""The Dockerfile's image: built, run with a read-only root, and used for a whole task."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskmint.devstack.psql import postgres_binaries
from taskmint.devstack.registration import Entry
from taskmint.devstack.stack import Stack
from taskmint.devstack.stack_files import DAEMON_ID

from container.image import Buildah, CannotBuild, Image, why_not
from plugins.canaries import Canaries

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

USER = 10001
TOOLS = ("gcc", "cc", "c++", "ld", "as", "make", "git", "curl")
PIP = re.compile(r"(^|/)(pip[0-9.]*$|pip/|ensurepip/)")  # as a command, as a package, to be had


@pytest.fixture(scope="module")
def image(
    checkout: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    """The image, built from a clean checkout on a base made here."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    buildah = Buildah(tmp_path_factory.mktemp("buildah"))
    try:
        buildah.make_base()
    except CannotBuild as error:
        pytest.skip(str(error))
    yield buildah.build(checkout, wheels)
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")


def files(image: Image) -> Iterator[Path]:
    """Every plain file of the image, by its path in it."""
    for directory, _, names in os.walk(image.root):
        yield from (Path(directory, name) for name in names)


def test_it_says_how_to_run_it(image: Image) -> None:
    """An ordinary user, an exec form, a health check, a stop signal that the daemon knows."""
    config = image.config
    sys.stdout.write(f"the image has {image.size}\n")

    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/opt/taskmint/bin/python", "-I", "-m", "taskmint"]
    assert config["Cmd"] == ["serve", "--config", "/etc/taskmint/taskmint.yaml"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][-1] == "taskmint.client.health"


def test_it_holds_no_tools_no_cache_and_no_secret(image: Image, canaries: Canaries) -> None:
    """Nothing to build with, nothing to install with, nothing that the build had and hid."""
    found = list(files(image))
    names = {path.name for path in found}
    inside = {str(path.relative_to(image.root)) for path in found}

    assert names.isdisjoint(TOOLS)
    assert not [path for path in inside if PIP.search(path)]
    assert not [path for path in inside if ".cache/" in path]
    assert not [path for path in inside if path.startswith("opt/") and path.endswith(".whl")]
    # Where pip's settings were mounted for the build, the mount's place is left, and is empty.
    assert all(path.stat().st_size == 0 for path in found if path.name == "pip.conf")
    assert names.isdisjoint({".netrc", "id_rsa", ".git", "pytest.ini", "conftest.py"})
    assert (image.root / "opt/taskmint/bin/taskmint").exists()
    canaries.search(image.root / "opt")
    assert canaries.findings == set()


async def test_it_serves_a_whole_task_and_stops_in_order(
    image: Image, stack: Stack, tmp_path: Path, canaries: Canaries
) -> None:
    """Healthy, ready, one task with a login that works and then does not, SIGTERM, exit 0."""
    volumes = laid_out(stack, tmp_path)
    daemon = (*image.config["Entrypoint"], *image.config["Cmd"])
    seen = executable(image, volumes, tmp_path)
    await stack.workload_api.register(Entry(DAEMON_ID, seen, USER))
    log = tmp_path / "daemon.log"
    check = image.config["Healthcheck"]["Test"][1:]
    with image.running(check, volumes, log) as health:
        assert health.wait(20) == 1
    with image.running(daemon, volumes, log) as serving:
        until_ready(serving, volumes_run(tmp_path), log)
        with image.running(check, volumes, log) as health:
            assert health.wait(20) == 0
        user, password = whole_task(stack, volumes_run(tmp_path))
        canaries.plant(password, "the containers's credential")
        serving.send_signal(getattr(signal, image.config["StopSignal"]))

        assert serving.wait(30) == 0
    said = [json.loads(line)["event"] for line in log.read_text().splitlines() if line[:1] == "{"]
    assert {"ready", "task_started", "task_revoked", "stopped"} <= set(said)
    assert await stack.postgres.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{user}'") == ()
    canaries.search(log)
    assert canaries.findings == set()


def volumes_run(place: Path) -> Path:
    """The directory of the sockets, as this side sees it."""
    return place / "run"


def laid_out(stack: Stack, place: Path) -> dict[Path, str]:
    """What an operator mounts: config and policy, the sockets' directory, the ledger's."""
    for name in ("run", "state", "etc"):
        (place / name).mkdir()
        os.chown(place / name, USER, USER)
    settings = json.loads(stack.paths.config.read_text())
    settings["sockets"] |= {
        "task": "/run/taskmint/task.sock",
        "admin": "/run/taskmint/admin.sock",
    }
    settings["ledger"]["path"] = "/var/lib/taskmint/ledger.db"
    settings["policy"]["files"] = ["/etc/taskmint/policy.d"]
    (place / "etc" / "policy.d").mkdir()
    for policy in stack.paths.policy.glob("*.yaml"):
        (place / "etc" / "policy.d" / policy.name).write_text(policy.read_text())
    (place / "etc" / "taskmint.yaml").write_text(json.dumps(settings))
    for file in (place / "etc").rglob("*.yaml"):
        file.chmod(0o644)
    return {
        place / "etc": "/etc/taskmint",
        place / "run": "/run/taskmint",
        place / "state": "/var/lib/taskmint",
        stack.paths.directory: str(stack.paths.directory),
    }


def executable(image: Image, volumes: dict[Path, str], place: Path) -> str:
    """The path that the development Workload API will see for a Python of the image."""
    command = (image.config["Entrypoint"][0], "-c", "import time; time.sleep(60)")
    with image.running(command, volumes, place / "probe.log") as probe:
        deadline = time.monotonic() + 20
        link, log = Path(f"/proc/{probe.pid}/exe"), place / "probe.log"
        while "python" not in (found := link.readlink()).name:
            assert probe.poll() is None, log.read_text()
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
    return str(found)


def until_ready(serving: "subprocess.Popen[bytes]", sockets: Path, log: Path) -> None:
    """Wait for the daemon's own word in its log, and for its socket."""
    deadline = time.monotonic() + 40
    while '"ready"' not in log.read_text() or not (sockets / "task.sock").exists():
        assert serving.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def whole_task(stack: Stack, sockets: Path) -> tuple[str, str]:
    """Run psql inside a task, from outside the container; the user and the password it had."""
    psql = postgres_binaries() / "psql"
    print_it = f'{psql} "$TASKMINT_DEV_DATABASE" -Atc "select 1"; echo "$PGUSER $PGPASSWORD"'
    done = subprocess.run(
        [
            *(str(stack.python["orders-report"]), "-m", "taskmint", "run"),
            *("--task", "orders-report", "-p", "region=eu", "--purpose", "container"),
            *("--env", "PGUSER=warehouse.username", "--env", "PGPASSWORD=warehouse.password"),
            *("--", "sh", "-euc", print_it),
        ],
        env={
            "PATH": os.environ["PATH"],
            **stack.environment(),
            "TASKMINT_SOCKET": str(sockets / "task.sock"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, credential = done.stdout.splitlines()
    assert one == "1"
    user, password = credential.split()
    return user, password
