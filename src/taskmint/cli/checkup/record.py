"""The ledger itself: can it be read, and is it whole; quickly where it is long."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from taskmint.errors import Unavailable
from taskmint.ledger.reader import LedgerReader

from .report import Diagnosis, failure, fine, note

_LEDGER: Final = "ledger"
_MOST_ROWS: Final = 20_000  # a second or two
_MOST_SHOWN: Final = 3
_FIX: Final = "see docs/ledger.md; `taskmint audit verify` lists everything that is wrong"


def check_ledger(path: Path) -> Iterator[Diagnosis]:
    """Verify every row of a ledger that is not too long."""
    if not path.is_file():
        return
    try:
        with LedgerReader.open(path) as reader:
            rows = reader.count()
            if rows > _MOST_ROWS:
                what = f"{rows} rows are too many to verify here"
                yield note(_LEDGER, what, "run taskmint audit verify")
                return
            found = list(islice(reader.findings(), _MOST_SHOWN))
    except Unavailable as error:
        yield failure(_LEDGER, error.detail, error.fix or _FIX)
        return
    for one in found:
        yield failure(_LEDGER, f"row {one.position}: {one.kind}: {one.detail}", _FIX)
    if not found:
        yield fine(_LEDGER, f"{rows} rows are intact")
