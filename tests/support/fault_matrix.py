"""Which tests cover which faults: `docs/fault-matrix.md` is made from the `fault` markers of the tests.

`python -m tests.support.fault_matrix > docs/fault-matrix.md` makes it anew.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_LINE = "| {number} | {fault} | {expected} | {databases} | {tests} |"
_HEAD = """# The fault matrix

Each row is a fault that the server has to survive, with what must hold afterwards. In all of them: what was
acknowledged arrives once or is parked, in order per run, with the terminal status last; nothing is made up;
other runs are not held up; a fresh write goes through afterwards. The tests of a row carry the marker `fault`
with its number, and this page is made from the markers:
`python -m tests.support.fault_matrix > docs/fault-matrix.md`.

They run real processes and end them with a real SIGKILL, against the emulated workspace of `emulator/`.
Nothing here was seen with a live workspace.

| # | fault | what holds | databases | tests |
|---|---|---|---|---|"""
_TAIL = """
Besides: a Hypothesis state machine (`tests/model`) tries rows 1, 5, 6, 8, 11 and 13 in any order; `make soak`
runs clients, faults, kills and outages for as long as it is told to and judges the end; `make mutate` turns
each guard off and wants the tests to go red.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault."""

    number: str
    fault: str
    expected: str
    databases: str = "SQLite"


BOTH = "SQLite, Postgres"
ROWS = (
    Row("1", "`kill -9` at any moment", "acknowledged is kept; an unrecorded success is read back", BOTH),
    Row("2", "power loss: what was not flushed is gone", "acknowledged is kept; a torn tail is ignored"),
    Row("3", "disk full, I/O errors", "no acknowledgement; 429, then 507; recovers when space returns"),
    Row("4", "a corrupt row", "that row is parked, the rest goes on", BOTH),
    Row("5", "the answer is lost after the effect", "read back, nothing twice"),
    Row("6", "500, 502, 503, 504 before or after the effect", "reading back decides"),
    Row("7", "time-outs, bodies that drip, are cut or are HTML", "uncertain, in a bounded time"),
    Row("8", "429 with seconds, a date, nothing, nonsense", "obeyed, up to five minutes"),
    Row("9", "401, 403, no token, a wrong clock", "clients notice nothing; goes on by itself"),
    Row("10", "one write of a batch is refused for good", "found by halving; only that is parked"),
    Row("11", "the workspace shows late what it has", "nothing twice within the settle time, else reported"),
    Row("12", "run deleted, experiment archived in the workspace", "parked with the reason"),
    Row("13", "network or name resolution away for hours or days", "drains in order; the age is told"),
    Row("14", "the backlog or the spool is full", "429, then 507; ending a run is accepted"),
    Row("15", "a client sends a create again", "one run, one version", BOTH),
    Row(
        "16",
        "several replicas: stopped, killed, cut off; the database restarts",
        "fenced; read back",
        "Postgres",
    ),
    Row("17", "graceful stop, upgrade, downgrade", "nothing lost; a newer schema is refused", BOTH),
    Row("18", "large files: cut, address ended, disk too small, several writers", "goes on; last one stays"),
    Row("19", "hostile input", "refused with 4xx, bounded", BOTH),
    Row("20", "the service changes", "parked with its words, no loop"),
)


def collect() -> dict[str, list[str]]:
    """Row number → the tests that are marked with it, as `file::test`."""
    found: dict[str, list[str]] = {row.number: [] for row in ROWS}
    for file in sorted(_TESTS.rglob("test_*.py")):
        for name, numbers in _marked(file):
            for number in numbers:
                found[number].append(f"{file.relative_to(_TESTS.parent)}::{name}")
    return found


def render() -> str:
    """The page."""
    tests = collect()
    lines = [
        _LINE.format(
            number=row.number,
            fault=row.fault,
            expected=row.expected,
            databases=row.databases,
            tests=_listed(tests[row.number]),
        )
        for row in ROWS
    ]
    return "\n".join([_HEAD, *lines, _TAIL])


def _listed(tests: list[str]) -> str:
    """Tests by file."""
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file.removeprefix("tests/"), []).append(name)
    return "; ".join(f"`{file}`: {', '.join(names)}" for file, names in files.items())


def _marked(file: Path) -> Iterator[tuple[str, list[str]]]:
    tree = ast.parse(file.read_text())
    of_all = [
        number
        for node in tree.body
        if isinstance(node, ast.Assign) and any(_is_named(target, "pytestmark") for target in node.targets)
        for number in _numbers(node.value)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            own = [number for decorator in node.decorator_list for number in _numbers(decorator)]
            yield node.name, list(dict.fromkeys([*of_all, *own]))


def _is_named(target: ast.expr, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


def _numbers(expression: ast.expr) -> list[str]:
    """The arguments of every `pytest.mark.fault(…)` in an expression."""
    return [
        str(ast.literal_eval(argument))
        for node in ast.walk(expression)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault"
        for argument in node.args
    ]


if __name__ == "__main__":
    sys.stdout.write(render())
