"""Whatever changes the metrics, params or tags of a run moves the run's version (`store.runs.RunVersion`)."""

import ast
import re
from pathlib import Path

_SERVER = Path(__file__).parents[2] / "server"
_TABLE = r"(?:series|params|tags)\b"
_WRITES = re.compile(
    rf"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|TRUNCATE|COPY)\s+\"?{_TABLE}"
    rf"|\b(?:insert|insert_rows|update|delete|_Part)\(\s*(?:schema\.)?\"?{_TABLE}"
)

_SETS_TAG = "runs.set_tag(transaction"

_JUDGED = {
    "commit/run_changes.py": "writes with each change the entry that run_writes has appended for it",
    "store/metrics.py": "rows of the points that run_writes gave positions to",
    "store/runs.py": "new runs, whose lane is new; set_tag, whose callers are looked at below",
    "store/removals.py": "takes from deleted runs only, which are never remembered",
}
"""The modules that write those tables, and why each moves the version or need not."""


def _writers() -> set[str]:
    return {
        str(file.relative_to(_SERVER))
        for file in _SERVER.rglob("*.py")
        if _WRITES.search(file.read_text()) is not None
    }


def test_nobody_else_writes_what_is_remembered() -> None:
    """A new writer has to be judged first: what moves no version would not be seen."""
    assert _writers() == set(_JUDGED)


def test_who_sets_a_tag_promises_its_delivery() -> None:
    """Each function that calls the store's `set_tag` for a run appends to the journal beside it."""
    appends = {}
    for file in _SERVER.rglob("*.py"):
        source = file.read_text()
        if _SETS_TAG not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = ast.get_source_segment(source, node) or ""
                if _SETS_TAG in body:
                    appends[f"{file.relative_to(_SERVER)}:{node.name}"] = "append_entry(" in body
    assert appends == {"services/runs.py:apply": True, "services/run_creates.py:repeat_run": True}
