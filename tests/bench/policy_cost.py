"""
What a policy costs: a decision beside one P-256 verification, loading, and memory.

    decision    CPU of one, without CEL and with one clause, as a ratio to a bare verification; and
                against many definitions as a ratio to the same against ten: asked for the same ten
                of them, and for others all over, which no processor's cache holds
    loading     CPU for each definition of a large policy, as a ratio to a tenth of it
    memory      that each definition keeps

Each is measured in a process of its own. `again` is the same thing twice, which is the noise.
"""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from taskmint import yaml_document
from taskmint.config import DEFAULT_CLASSES
from taskmint.model.caller import IdentityMethod
from taskmint.model.scope import CallerFacts, DecisionInput, RequestFacts, Scope
from taskmint.model.spiffe import SpiffeId
from taskmint.policy.compile import compile_definition
from taskmint.policy.condition import Compiler
from taskmint.policy.decide import decide
from taskmint.policy.definition import Definition, Policy
from taskmint.policy.load import load_policy
from taskmint.policy.schema import DefinitionSchema
from taskmint.policy.workbench import Surroundings, Workbench
from taskmint.yaml_document import parse_document
from taskmint.yaml_model import read_model

from .judge import Verdict
from .section import Figure, Section
from .sizes import Sizes

DECISIONS: Final = 500  # of each arm in a round
FEW: Final = 10
_STRIDE: Final = 7919  # a prime, so that it comes everywhere
_KEPT: Final = 5000
# A decision, of one P-256 verification; and of many definitions, of the same among ten.
GATES: Final[Mapping[str, tuple[str, float]]] = {
    "plain_ratio": ("a decision without CEL, of a P-256 verification", 1 / 4),
    "with_cel_ratio": ("a decision with one CEL clause, of a P-256 verification", 1 / 3),
    "of_many_ratio": ("a decision among many definitions, of one among ten", 1.5),
}
ALL_OVER: Final = "the same, asked for another of the many each time"
_PER_FILE: Final = 5000
CEL: Final = 'when: request.purpose != "" && caller.uid > 0'
_CALLER: Final = "spiffe://example.org/ns/n{number}/sa/{job}"
_DEFINITION: Final = """\
  task-{number}:
    owner: team-{team}@example.org
    class: batch
    who: ["spiffe://example.org/ns/n{number}/sa/{{job}}"]
    parameters: {{region: {{enum: [eu, us]}}}}
    {when}
    deadline: {{default: 5m, max: 30m}}
    ends: {{bind: [peer, parent], heartbeat: 60s}}
    scope: {{warehouse: {{secret: {{mount: database, path: "creds/ro-{number}-{{region}}"}}}}}}
"""


def files(count: int) -> list[tuple[str, bytes]]:
    """Write so many definitions as an admin's files."""
    return [
        (f"{first}.yaml", _text(range(first, min(first + _PER_FILE, count)), CEL))
        for first in range(0, count, _PER_FILE)
    ]


def _text(numbers: Iterable[int], when: str) -> bytes:
    tasks = "".join(
        _DEFINITION.format(number=number, team=number % 100, when=when) for number in numbers
    )
    return f"version: 1\ntasks:\n{tasks}".encode()


def built(count: int, when: str = "") -> Policy:
    """Build so many definitions through the model, without YAML; each has its own callers."""
    document = parse_document("bench.yaml", _text([0], when))
    assert isinstance(document.root, yaml_document.Mapping)
    tasks = document.root.entries["tasks"]
    assert isinstance(tasks, yaml_document.Mapping)
    node = tasks.entries["task-0"]
    schema = read_model(DefinitionSchema, document, ("tasks", "task-0"), node).value
    assert schema is not None
    around = Surroundings(DEFAULT_CLASSES, frozenset(), Compiler())
    definitions: dict[str, Definition] = {}
    for number in range(count):
        own = schema.model_copy(update={"who": (_CALLER.format(number=number, job="{job}"),)})
        bench = Workbench("bench.yaml", node, ("tasks",), 1)
        compiled = compile_definition(f"task-{number}", own, around, bench)
        assert compiled is not None, bench.findings
        definitions[compiled.name] = compiled
    return Policy("digest", definitions, {})


def scattered(count: int) -> list[DecisionInput]:
    """Ask for definitions all over the policy: seldom twice for one."""
    return [_request(_STRIDE * number % count) for number in range(DECISIONS)]


def few_of(count: int) -> list[DecisionInput]:
    """Ask for the same few definitions again and again, as one node does."""
    return [_request(number % FEW * (count // FEW)) for number in range(DECISIONS)]


def _request(number: int) -> DecisionInput:
    caller = SpiffeId.parse(_CALLER.format(number=number, job="nightly"))
    return DecisionInput(
        CallerFacts(caller, 1000, IdentityMethod.JWT_SVID),
        RequestFacts(f"task-{number}", {"region": "eu"}, purpose="nightly totals"),
        datetime(2026, 12, 2, 12, tzinfo=UTC),
    )


def deciding(policy: Policy, asked: list[DecisionInput]) -> Callable[[], None]:
    """Decide each of the requests once; all are granted."""
    assert all(isinstance(decide(policy, given), Scope) for given in asked)

    def arm() -> None:
        for given in asked:
            decide(policy, given)

    return arm


def verifying() -> Callable[[], None]:
    """Verify P-256 signatures, bare."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, message, rule = key.public_key(), b"x" * 400, ec.ECDSA(hashes.SHA256())
    signatures = [key.sign(message, rule) for _ in range(DECISIONS)]

    def arm() -> None:
        for signature in signatures:
            public.verify(signature, message, rule)

    return arm


def decisions(count: int, rounds: int) -> dict[str, float]:
    """Return seconds of CPU for one operation of each arm, and the ratios; medians of rounds."""
    few, many = built(FEW), built(count)
    arms = {
        "verify": verifying(),
        "again": verifying(),
        "plain": deciding(few, few_of(FEW)),
        "with_cel": deciding(built(FEW, CEL), few_of(FEW)),
        "of_many": deciding(many, few_of(count)),
        "all_over": deciding(many, scattered(count)),
    }
    gc.freeze()  # what was built is not walked again for each arm
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.thread_time()
            arm()
            spent[name].append((time.thread_time() - began) / DECISIONS)
    figures = {name: median(values) for name, values in spent.items()}
    for name, over in (
        ("again", "verify"),
        ("plain", "verify"),
        ("with_cel", "verify"),
        ("of_many", "plain"),
        ("all_over", "plain"),
    ):
        ratios = [one / other for one, other in zip(spent[name], spent[over], strict=True)]
        figures[f"{name}_ratio"] = median(ratios)
    return figures


def loading(count: int) -> dict[str, float]:
    """Load so many from YAML: seconds of CPU for each, and the most memory that it took."""
    given = files(count)
    began = time.process_time()
    load_policy(given, DEFAULT_CLASSES)
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"load_each": spent / count, "load_peak": peak}


def keeping(count: int) -> dict[str, float]:
    """Count the bytes that each definition keeps, by Python's own allocator."""
    built(FEW, CEL)  # whatever is made once
    tracemalloc.start()
    policy = built(count, CEL)
    gc.collect()
    return {"bytes_each": tracemalloc.get_traced_memory()[0] / len(policy.definitions)}


def _in_a_child(what: str, count: int, rounds: int) -> dict[str, float]:
    """Run one measurement in a process of its own and return its figures."""
    answer = subprocess.run(
        [sys.executable, "-m", __name__, what, str(count), str(rounds)],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
    )
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


async def measure(sizes: Sizes) -> Section:
    """Measure everything, one after another; a tenth of the definitions loads as comparison."""
    return await asyncio.to_thread(_measured, sizes.definitions, sizes.rounds)


def _measured(count: int, rounds: int) -> Section:
    few, many = (_in_a_child("loading", size, rounds) for size in (count // 10, count))
    found = _in_a_child("decisions", count, rounds)
    kept = _in_a_child("keeping", min(count, _KEPT), rounds)
    load_ratio = many["load_each"] / few["load_each"]
    figures = [
        Figure("a P-256 verification", found["verify"] * 1e6, "us"),
        Figure("the same again", found["again_ratio"], "x"),
        *(Figure(name, found[key], "x") for key, (name, _) in GATES.items()),
        Figure(ALL_OVER, found["all_over_ratio"], "x"),
        Figure(f"loading {count} definitions, for each, of a tenth of them", load_ratio, "x"),
        Figure("loading, for each", many["load_each"] * 1e6, "us"),
        Figure("loading, memory at most", many["load_peak"] / 1e6, "MB"),
        Figure("a definition keeps", kept["bytes_each"] / 1e3, "kB"),
    ]
    twice = f"the same verification twice: {found['again_ratio']:.2f}"
    verdicts = [
        Verdict(name, gate=True, value=found[key], bound=bound, at_most=True, explanation=twice)
        for key, (name, bound) in GATES.items()
    ]
    elsewhere = Verdict(
        ALL_OVER,
        gate=False,
        value=found["all_over_ratio"],
        bound=1.5,
        at_most=True,
        explanation="what it costs more is memory that no cache holds: the neighbours' affair",
    )
    linear = Verdict(
        "loading, for each, of a tenth of them",
        gate=False,
        value=load_ratio,
        bound=1.5,
        at_most=True,
        explanation="what it costs more is the garbage collector's",
    )
    return Section(figures, [*verdicts, elsewhere, linear])


if __name__ == "__main__":
    _, name, count_, rounds_ = sys.argv
    if name == "decisions":
        found = decisions(int(count_), int(rounds_))
    else:
        found = loading(int(count_)) if name == "loading" else keeping(int(count_))
    sys.stdout.write(json.dumps(found))
