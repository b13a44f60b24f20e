"""`verify` names every kind of difference between a run here and in the workspace."""

from typing import Any

import httpx
import pytest

from tests.durability.conftest import drain
from tests.durability.tracking import BASE_MS, Tracking, train
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess
from tests.support.server import ServerProcess

REPEATED_POINT = {"key": "loss", "value": 1.0, "timestamp": BASE_MS, "step": 0}
CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a point twice": ("runs/log-batch", {"metrics": [REPEATED_POINT]}, "metric loss"),
    "a point more": (
        "runs/log-batch",
        {"metrics": [{"key": "loss", "value": 9.0, "timestamp": 1, "step": 99}]},
        "metric loss",
    ),
    "a metric more": (
        "runs/log-batch",
        {"metrics": [{"key": "foreign", "value": 9.0, "timestamp": 1, "step": 0}]},
        "metric foreign",
    ),
    "a param more": ("runs/log-parameter", {"key": "foreign", "value": "x"}, "param foreign"),
    "a tag more": ("runs/set-tag", {"key": "foreign", "value": "x"}, "tag foreign"),
    "another tag": ("runs/set-tag", {"key": "progress", "value": "x"}, "tag progress"),
    "a tag less": ("runs/delete-tag", {"key": "progress"}, "tag progress"),
    "another status": ("runs/update", {"status": "FAILED", "end_time": BASE_MS + 10_000_000}, "status"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_difference_is_named(
    change: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """What someone else changed in the workspace makes `verify` fail and say what it is."""
    run = train(client, experiment, change, steps=3)
    drain(server)
    route, body, what = CHANGES[change]
    answer = httpx.post(
        f"{emulator.http_url}/mlflow/v1.0{WORKSPACE_PATH}/api/2.0/mlflow/{route}",
        json={"run_id": run.run_id, **body},
        headers={"Authorization": f"Bearer {emulator.token()}"},
        trust_env=False,
    )
    assert answer.is_success, answer.text
    verified = httpx.get(f"{server.url}/api/2.0/mlproxy/verify/{run.run_id}", trust_env=False).json()
    assert not verified["equal"]
    assert [difference["what"] for difference in verified["differences"]] == [what]
