"""docs/errors.md is the promise that codes are stable: it lists each one, with its true status."""

import re

from source_tree import REPOSITORY
from taskmint.api.problems import STATUS, status_of
from taskmint.errors import Code, TaskmintError

ROW = re.compile(r"\| `([a-z_]+)` \| (\d{3}|-) \| (.+) \| (.+) \|")


def rows() -> dict[str, tuple[str, str, str]]:
    """Code -> status, meaning, fix, as the page has them."""
    text = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    found = [ROW.fullmatch(line) for line in text.splitlines()]
    listed = [(row[1], (row[2], row[3], row[4])) for row in found if row]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def test_every_code_is_documented() -> None:
    """No code without a row, no row without a code, each with a meaning and a fix."""
    page = rows()

    assert page.keys() == {code.value for code in Code}
    assert all(meaning and fix for _, meaning, fix in page.values())


def test_documented_statuses_are_possible() -> None:
    """A status of the page is one that the daemon's table can give this code."""
    kinds: list[type[TaskmintError]] = list(STATUS)
    for code, (status, _, _) in rows().items():
        if status in {"-", "500"}:
            continue
        possible = set()
        for kind in kinds:
            error = kind.__new__(kind)
            error.code = Code(code)
            possible.add(status_of(error))
        assert int(status) in possible, code
