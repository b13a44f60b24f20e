"""The page about faults tells what the tests do, and every place that can fail is made to fail."""

import re
from pathlib import Path

from tests.support.fault_matrix import ROWS, collect, render

_REPOSITORY = Path(__file__).parents[2]
_REACHED = re.compile(r"failpoints\.reach\(\s*\"([a-z_.]+)\"")


def test_the_page_is_made_from_the_markers() -> None:
    """`docs/fault-matrix.md` is exactly what the tests' markers say."""
    assert (_REPOSITORY / "docs" / "fault-matrix.md").read_text() == render()


def test_every_row_has_a_test() -> None:
    """No fault of the matrix is only talked about; no marker names a row that is not there."""
    tests = collect()
    assert tests.keys() == {row.number for row in ROWS}
    assert [number for number, found in tests.items() if not found] == []


def test_every_failpoint_is_used_by_a_test() -> None:
    """A place that says it is reached is a place where some test makes the process fail."""
    places = {
        name for file in (_REPOSITORY / "server").rglob("*.py") for name in _REACHED.findall(file.read_text())
    }
    tests = "\n".join(file.read_text() for file in (_REPOSITORY / "tests").rglob("*.py"))
    assert len(places) > 10
    assert sorted(name for name in places if f'"{name}' not in tests and f"{name}=" not in tests) == []
