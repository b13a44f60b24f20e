"""`make demo` as a person runs it, less the setting up of its environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO_SECONDS = 480
CLIENT_PYTHON = Path(
    os.environ.get("MLPROXY_TEST_MLFLOW3_PYTHON") or ROOT / ".venvs" / "mlflow3" / "bin" / "python"
)


@pytest.mark.timeout(DEMO_SECONDS + 60)
def test_workspace_ends_with_exactly_what_the_client_logged(tmp_path: Path) -> None:
    """Runs trained with stock MLflow through the proxy arrive in the workspace whole, and each once."""
    if not CLIENT_PYTHON.exists() and not os.environ.get("MLPROXY_TEST_REQUIRE_ALL"):
        pytest.skip(f"{CLIENT_PYTHON} does not exist: `make clients` sets it up")
    done = subprocess.run(
        [sys.executable, "-m", "demo.run"],
        cwd=ROOT,
        env={
            **os.environ,
            "DEMO_EXIT": "1",
            "DEMO_FOLDER": str(tmp_path / "demo"),
            "DEMO_CLIENT_PYTHON": str(CLIENT_PYTHON),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
    )
    said = f"{done.stdout}\n{done.stderr}"
    # In a checkout MLflow notes the commit in tags of its own; everything else is fixed.
    summary = r"(?m)^4 runs, 271 metric points, 15 params, \d+ tags, 13 files by hash, 1 versions: EQUAL$"
    assert re.search(summary, done.stdout), said
    assert "none of them azure-*" in done.stdout, said
    assert done.returncode == 0, said
