"""
Coverage-guided fuzzing of what reads policy files, policy tests and configurations.

    python tests/policy/fuzz.py TARGET CORPUS [libFuzzer options such as -max_total_time=60]

TARGET is policy, cases or config; CORPUS is a directory that keeps what was interesting. Needs
atheris (CPython 3.11). Whatever is raised besides ConfigError, and a policy that cannot be decided
by, ends the run with the input that did it. The alphabet is mostly words of the language, so that
inputs come further than the reader of YAML.
"""

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

atheris: Any = import_module("atheris")

with atheris.instrument_imports(
    include=["taskmint.policy", "taskmint.yaml_document", "taskmint.yaml_model", "taskmint.config"]
):
    from taskmint.config import DEFAULT_CLASSES, load_config
    from taskmint.errors import ConfigError
    from taskmint.model.caller import IdentityMethod
    from taskmint.model.scope import CallerFacts, DecisionInput, RequestFacts
    from taskmint.model.spiffe import SpiffeId
    from taskmint.policy.cases import read_cases
    from taskmint.policy.decide import decide
    from taskmint.policy.lint import lint
    from taskmint.policy.load import load_policy

EXAMPLES: Final = Path(__file__).parents[2] / "config" / "examples"
SEEDS: Final = tuple(
    file.read_text() for file in (*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("tests/*.yaml"))
)
WORDS: Final = tuple(dict.fromkeys(word for seed in SEEDS for word in seed.split()))
NOON: Final = datetime(2026, 12, 2, 12, tzinfo=UTC)
JOB: Final = SpiffeId("example.org", "/ns/orders/sa/nightly")


def text_of(data: bytes) -> str:
    """Read bytes as edits of a seed: which, where, and which word or byte to put there."""
    if len(data) < 1:
        return ""
    seed = SEEDS[data[0] % len(SEEDS)]
    for place, kind, value in zip(data[1::3], data[2::3], data[3::3], strict=False):
        at = place * len(seed) // 256
        end = at + kind % 16
        word = WORDS[value % len(WORDS)] if kind & 16 else chr(value)
        seed = seed[:at] + word + seed[at if kind & 32 else end :]
    return seed


def require_findings(error: ConfigError) -> None:
    """What is refused is refused with what is wrong."""
    if not error.findings:
        raise RuntimeError("refused without a finding") from error


def policy(data: bytes) -> None:
    """Raw and edited: a policy that decides, or ConfigError with findings; never a part of one."""
    for content in (data, text_of(data).encode()):
        try:
            loaded = load_policy([("fuzz.yaml", content)], DEFAULT_CLASSES)
        except ConfigError as error:
            require_findings(error)
            continue
        lint(loaded, DEFAULT_CLASSES, NOON)
        for name in loaded.definitions:
            caller = CallerFacts(JOB, 1000, IdentityMethod.JWT_SVID)
            decide(loaded, DecisionInput(caller, RequestFacts(name), NOON))


def cases(data: bytes) -> None:
    """Cases, or ConfigError with findings."""
    for content in (data, text_of(data).encode()):
        try:
            read_cases("fuzz.yaml", content)
        except ConfigError as error:
            require_findings(error)


def config(data: bytes) -> None:
    """A configuration, or ConfigError with findings."""
    try:
        load_config("fuzz.yaml", data, {})
    except ConfigError as error:
        require_findings(error)


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "policy": policy,
    "cases": cases,
    "config": config,
}

if __name__ == "__main__":
    target, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[target])
    atheris.Fuzz()
