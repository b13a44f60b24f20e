"""The interpreters that client scripts run in: environments of their own, without any Azure package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.emulator import REPOSITORY

CLIENTS = REPOSITORY / "tests" / "clients"
_FOREIGN = ("MLPROXY_", "MLFLOW_", "AZURE_", "IDENTITY_", "MSI_", "DATABRICKS_")


def client_python(name: str) -> Path:
    """The interpreter of `mlflow3`, `mlflow2` or `mlflow1`; skips the test where it is absent and may be."""
    variable = f"MLPROXY_TEST_{name.upper()}_PYTHON"
    python = Path(os.environ.get(variable) or REPOSITORY / ".venvs" / name / "bin" / "python")
    if not python.exists():
        reason = f"no interpreter for {name}: `make clients` sets it up, or {variable} names one"
        if os.environ.get("MLPROXY_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def start_client(
    python: Path, script: str, *arguments: str, folder: Path, **environment: str
) -> "subprocess.Popen[str]":
    """Start a script of `tests/clients` with MLflow's own variables and nothing of this project's."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    inherited.pop("PYTHONPATH", None)
    with (folder / "client.log").open("ab") as log:
        return subprocess.Popen(
            [str(python), str(CLIENTS / script), *arguments],
            env={**inherited, **environment},
            cwd=folder,
            text=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run_client(
    python: Path, script: str, *arguments: str, folder: Path, timeout: float = 480.0, **environment: str
) -> None:
    """Run a script of `tests/clients` to its end; fails with what it said."""
    process = start_client(python, script, *arguments, folder=folder, **environment)
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        code = -1
    if code != 0:
        said = (folder / "client.log").read_text()[-6000:]
        print(said, file=sys.stderr)
        raise AssertionError(f"{script} ended with {code}:\n{said}")
