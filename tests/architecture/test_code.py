"""The shape of the code: layers, and nothing too long to read."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]
_LONGEST_FILE = 600
_LONGEST_FUNCTION = 80


def _files() -> Iterator[Path]:
    for package in ("server", "emulator"):
        yield from sorted((_REPOSITORY / package).rglob("*.py"))


def test_layers_import_downwards_only() -> None:
    """The contracts of import-linter hold."""
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed beside this interpreter")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=_REPOSITORY, capture_output=True, text=True, check=False, timeout=480
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_too_long() -> None:
    """Nothing in the server or the emulator is longer than 600 lines."""
    lengths = {str(file.relative_to(_REPOSITORY)): len(file.read_text().splitlines()) for file in _files()}
    assert {name: length for name, length in lengths.items() if length > _LONGEST_FILE} == {}


def test_no_function_is_too_long() -> None:
    """Nothing in the server or the emulator is longer than 80 lines."""
    long = {
        f"{file.relative_to(_REPOSITORY)}:{node.name}": node.end_lineno - node.lineno + 1
        for file in _files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > _LONGEST_FUNCTION
    }
    assert long == {}


def test_the_server_does_not_import_mlflow() -> None:
    """Its import alone costs seconds and hundreds of megabytes."""
    for file in _files():
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.partition(".")[0] == "mlflow"], file
