"""docker-compose.yml is what Compose takes, by the schema of the Compose specification.

What it promises beyond that is checked in `tests/demo/test_container_files.py`.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.emulator import REPOSITORY

COMPOSE = REPOSITORY / "docker-compose.yml"
RULES = Path(__file__).parent / "dclint.yaml"


def findings(file: Path) -> str:
    """What the linter says; empty when it is content."""
    folder = Path(os.environ.get("MLPROXY_TEST_NODE") or REPOSITORY / ".venvs" / "node")
    program = folder / "node_modules" / "dclint" / "bin" / "dclint.cjs"
    if not program.exists():
        reason = "no dclint: `make azurite` sets it up"
        if os.environ.get("MLPROXY_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    done = subprocess.run(
        [
            str(folder / "bin" / "node"),
            str(program),
            "--config",
            str(RULES),
            "--max-warnings",
            "0",
            str(file),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode == 0) is (not done.stdout.strip()), done.stderr
    return done.stdout.strip()


def test_compose_takes_the_file() -> None:
    """Every field of every service is one that Compose knows, and of its type."""
    assert findings(COMPOSE) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("read_only: true", "read_onlyy: true"),
        ("stop_grace_period: 30s", "stop_grace_period: [30]"),
        ("condition: service_healthy", "condition: healthy"),
    ],
)
def test_a_mistake_would_be_found(right: str, wrong: str, tmp_path: Path) -> None:
    """A misspelt field, a wrong type, a condition that does not exist."""
    text = COMPOSE.read_text()
    assert right in text
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(text.replace(right, wrong))
    assert "invalid-schema" in findings(broken)
