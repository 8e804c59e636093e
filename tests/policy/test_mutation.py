"""The verdict on a mutation run: what counts as killed, and that every survivor has its reason."""

import json
from pathlib import Path

import pytest

from policy.mutation import SURVIVORS, Unfinished, main, mutants, reasons

MODULE = """
def x_twice__mutmut_orig(n):
    return n * 2


def x_twice__mutmut_1(n):
    return n / 2


def x_twice__mutmut_2(n):
    return n * 3


class Box:
    def xǁBoxǁopen__mutmut_orig(self):
        return True

    def xǁBoxǁopen__mutmut_1(self):
        return False
"""
TWICE = "shop.x_twice__mutmut_"
OPEN = "shop.xǁBoxǁopen__mutmut_1"
SURVIVED = "shop.twice: - return n * 2 + return n * 3"
TIMED_OUT = -24


def run_of(directory: Path, *codes: int | None) -> Path:
    """What mutmut leaves of a run: the mutated source, and exit codes by mutant."""
    (directory / "shop.py").write_text(MODULE)
    names = (f"{TWICE}1", f"{TWICE}2", OPEN)
    results = {"exit_code_by_key": dict(zip(names, codes, strict=True))}
    (directory / "shop.py.meta").write_text(json.dumps(results))
    return directory


def listed(directory: Path, *mutants_: str, reason: str = "they are the same") -> Path:
    """A file of known survivors."""
    file = directory / "survivors.yaml"
    file.write_text(json.dumps([{"reason": reason, "mutants": list(mutants_)}]))
    return file


def test_a_mutant_is_known_by_its_function_and_its_change(tmp_path: Path) -> None:
    """Not by its number, which moves with every edit."""
    assert [mutant.what for mutant in mutants(run_of(tmp_path, 1, 0, 1))] == [
        "shop.twice: - return n * 2 + return n / 2",
        SURVIVED,
        "shop.Box.open: - return True + return False",
    ]


@pytest.mark.parametrize("code", [0, 3, 5, 33, 36, TIMED_OUT, -9, -11])
def test_only_a_failed_test_kills(tmp_path: Path, code: int) -> None:
    """Survived, broken, without a test, out of time, killed by a signal: alive, all of them."""
    (mutant, *_) = mutants(run_of(tmp_path, code, 1, 1))

    assert not mutant.killed


def test_all_killed_is_a_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, with the share."""
    assert main(run_of(tmp_path, 1, 1, 1), listed(tmp_path)) == 0
    assert capsys.readouterr().out == "3 of 3 mutants killed, 100.0%; 90% are needed\n"


def test_too_few_killed_is_a_failure(tmp_path: Path) -> None:
    """Two thirds do not suffice, whatever is listed."""
    assert main(run_of(tmp_path, 1, 0, 1), listed(tmp_path, SURVIVED)) == 1


def test_an_unlisted_survivor_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named as it would be listed; one that is listed and was killed is named as well."""
    directory = run_of(tmp_path, 1, TIMED_OUT, 1)

    assert main(directory, listed(tmp_path, "shop.gone: - a + b")) == 1
    out = capsys.readouterr().out
    assert f"survivors.yaml does not say why: {SURVIVED}\n" in out
    assert "killed or gone: shop.gone: - a + b\n" in out


@pytest.mark.parametrize("what", ["an untried mutant", "no results"])
def test_without_a_whole_run_there_is_no_verdict(tmp_path: Path, what: str) -> None:
    """Exit 2: nothing was found out."""
    directory = run_of(tmp_path, 1, None, 1) if what == "an untried mutant" else tmp_path / "none"
    with pytest.raises(Unfinished):
        list(mutants(directory))

    assert main(directory, listed(tmp_path)) == 2


def test_the_committed_survivors_have_reasons() -> None:
    """Each once, with a sentence."""
    assert all(reason.endswith(".") for reason in reasons(SURVIVORS).values())


@pytest.mark.parametrize(("names", "reason"), [((SURVIVED,), " "), ((SURVIVED, SURVIVED), "why")])
def test_a_survivor_without_a_reason_or_twice_is_refused(
    tmp_path: Path, names: tuple[str, ...], reason: str
) -> None:
    """The list is read as strictly as it is meant."""
    with pytest.raises(ValueError, match="stands there twice, or without a reason"):
        reasons(listed(tmp_path, *names, reason=reason))
