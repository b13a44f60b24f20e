"""Whoever looks up a run or a logged model by the id of a request says that it was named."""

import ast
import re
from pathlib import Path

_SERVER = Path(__file__).parents[2] / "server"
_ID = r"(?:\w+\.)?(?:run_id|upstream_id|model_id)"
_BY_ID = re.compile(rf"\bWHERE {_ID}(?:\s*=|\s*$)|\bAND {_ID}\s*=|^{_ID} = \?")
_NAMES = "transaction.named"

_NOT_NAMED = {
    "store/runs.py:find_made": "the proxy remembers these ids",
    "store/logged_models.py:find_made": "the proxy remembers this id",
    "store/upstream_ids.py:find_run_by_id": "for delivery, and for runs that were looked up before",
    "store/upstream_ids.py:upstream_run_id_of": "for delivery",
    "services/retrying/": "what parked operations refer to, not what a request names",
    "store/removals.py:": "what is being removed has been looked up, and is gone afterwards",
    "store/exported.py:list_model_points": "an export reads whole experiments, no request named the model",
    "store/experiments.py:find_id_by_upstream_id": "experiments are not recognised by naming",
}
"""Look-ups by an id that no request gave, or whole folders of them, with the reason."""


def _look_ups() -> dict[str, bool]:
    """Every function with SQL that finds rows by an id, and whether it says that the thing was named."""
    found = {}
    for file in sorted(_SERVER.rglob("*.py")):
        source = file.read_text()
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            texts = [
                part.value
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if any(_BY_ID.search(text) for text in texts if text != ast.get_docstring(node, clean=False)):
                body = ast.get_source_segment(source, node) or ""
                found[f"{file.relative_to(_SERVER)}:{node.name}"] = _NAMES in body
    return found


def test_a_run_cannot_be_found_without_being_named() -> None:
    """Every look-up by a request's id notes it: else a run in use could pass for one that nobody knows."""
    silent = {name for name, notes in _look_ups().items() if not notes}
    assert {name for name in silent if not name.startswith(tuple(_NOT_NAMED))} == set()


def test_the_exceptions_are_still_there() -> None:
    """A reason for what is gone helps nobody."""
    look_ups = _look_ups()
    assert {name for name in _NOT_NAMED if not any(found.startswith(name) for found in look_ups)} == set()


def test_the_known_look_ups_are_seen() -> None:
    """The search would find a new one."""
    assert {
        "store/runs.py:find_info",
        "store/runs.py:find_home",
        "commit/run_state.py:_find_runs",
        "store/artifacts.py:find_model_folder",
    } <= {name for name, notes in _look_ups().items() if notes}
