"""A small MLflow client that keeps the books: what was acknowledged, and how long each call took.

It speaks plain REST so that a test can see every single answer. `LoggedRun` is what one run was told
and the proxy acknowledged; `assert_delivered` holds it against the workspace.
"""

import hashlib
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from tests.support.emulator import EmulatorProcess
from tests.support.workspace import PARENT_TAG, Point, point, run_of

BASE_MS = 1_700_000_000_000
API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
LONGEST_STALL_SECONDS = 10.0
JsonObject = dict[str, Any]


@dataclass(slots=True)
class LoggedRun:
    """Everything that was acknowledged for one run."""

    run_id: str
    artifact_root: str
    name: str
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    status: str = "RUNNING"
    end_time: int | None = None


class Tracking:
    """One client's connection to the proxy."""

    def __init__(self, url: str, *, timeout: float = 60.0, api_key: str | None = None) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers, trust_env=False)
        self.seconds: list[float] = []
        """How long each call took."""

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: JsonObject) -> JsonObject:
        return dict(self._send("POST", f"{API}/{path}", json=body).json())

    def try_post(self, path: str, body: JsonObject) -> httpx.Response:
        """The answer, whatever it is."""
        return self._http.post(f"{API}/{path}", json=body)

    def get(self, path: str, **query: str) -> JsonObject:
        return dict(self._send("GET", f"{API}/{path}", params=query).json())

    def run_status(self, run_id: str) -> JsonObject:
        """The proxy's own route about one run."""
        return dict(self._send("GET", f"/api/2.0/mlproxy/runs/{run_id}").json())

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        started = time.monotonic()
        answer = self._http.request(method, path, **content)
        self.seconds.append(time.monotonic() - started)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer

    def create_experiment(self, name: str) -> str:
        return str(self.post("experiments/create", {"name": name})["experiment_id"])

    def create_run(self, experiment_id: str, name: str, **tags: str) -> LoggedRun:
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": BASE_MS,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        info = self.post("runs/create", body)["run"]["info"]
        root = info["artifact_uri"].partition(":")[2].strip("/")
        return LoggedRun(info["run_id"], root, name, tags=dict(tags))

    def create_child(self, experiment_id: str, name: str, parent: LoggedRun) -> LoggedRun:
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": BASE_MS,
            "tags": [{"key": PARENT_TAG, "value": parent.run_id}],
        }
        info = self.post("runs/create", body)["run"]["info"]
        return LoggedRun(info["run_id"], info["artifact_uri"].partition(":")[2].strip("/"), name)

    def log_metric(self, run: LoggedRun, key: str, value: float, step: int) -> None:
        body = {
            "run_id": run.run_id,
            "key": key,
            "value": value,
            "timestamp": BASE_MS + step,
            "step": step,
        }
        self.post("runs/log-metric", body)
        run.points.append(point(key, step, BASE_MS + step, value))

    def log_params(self, run: LoggedRun, params: dict[str, str]) -> None:
        listed = [{"key": key, "value": value} for key, value in params.items()]
        self.post("runs/log-batch", {"run_id": run.run_id, "params": listed})
        run.params |= params

    def log_points(
        self, run: LoggedRun, points: list[tuple[str, float, int]], *, params: dict[str, str] | None = None
    ) -> None:
        """Several points in one call, and params with them."""
        rows = [
            {"key": key, "value": value, "timestamp": BASE_MS + step, "step": step}
            for key, value, step in points
        ]
        body: JsonObject = {"run_id": run.run_id, "metrics": rows}
        if params:
            body["params"] = [{"key": key, "value": value} for key, value in params.items()]
        self.post("runs/log-batch", body)
        run.params |= params or {}
        run.points += [point(key, step, BASE_MS + step, value) for key, value, step in points]

    def set_tag(self, run: LoggedRun, key: str, value: str) -> None:
        self.post("runs/set-tag", {"run_id": run.run_id, "key": key, "value": value})
        run.tags[key] = value

    def delete_tag(self, run: LoggedRun, key: str) -> None:
        self.post("runs/delete-tag", {"run_id": run.run_id, "key": key})
        del run.tags[key]

    def upload(self, run: LoggedRun, path: str, content: bytes) -> None:
        self._send("PUT", f"{ARTIFACTS}/{run.artifact_root}/{quote(path)}", content=content)
        run.files[path] = hashlib.sha256(content).hexdigest()

    def download(self, run: LoggedRun, path: str) -> bytes:
        return self._send("GET", f"{ARTIFACTS}/{run.artifact_root}/{quote(path)}").content

    def end(self, run: LoggedRun, status: str = "FINISHED") -> None:
        ended = BASE_MS + 10_000_000
        self.post("runs/update", {"run_id": run.run_id, "status": status, "end_time": ended})
        run.status, run.end_time = status, ended


def assert_waited_for_nobody(client: Tracking, *, longest: float = LONGEST_STALL_SECONDS) -> None:
    """The client's calls were answered at once, whatever the workspace did.

    Each took less than `longest`, which a call that waits for the workspace would not; a single one may take
    as long as a busy machine stands still. Most took less than a second.
    """
    assert max(client.seconds) < longest, client.seconds
    assert statistics.median(client.seconds) < 1.0, client.seconds


def train(client: Tracking, experiment_id: str, name: str, *, steps: int = 10) -> LoggedRun:
    """A whole small run: params, two metrics a step, tags set anew and deleted, files, the end."""
    run = client.create_run(experiment_id, name, at_start="yes")
    client.log_params(run, {"rate": "0.1", "depth": "3"})
    for step in range(steps):
        client.log_metric(run, "loss", 1.0 / (step + 1), step)
        client.log_metric(run, "accuracy", step / 7, step)
        client.set_tag(run, "progress", str(step))
    client.set_tag(run, "short-lived", "x")
    client.delete_tag(run, "short-lived")
    client.upload(run, "notes.txt", b"all well")
    client.upload(run, "model/weights.bin", bytes(range(256)) * 1024)
    client.end(run)
    return run


def assert_delivered(emulator: EmulatorProcess, run: LoggedRun, *, upstream_id: str | None = None) -> None:
    """The workspace holds exactly what was acknowledged, each thing once, points in order, the end last."""
    held = run_of(emulator, upstream_id or run.run_id)
    assert held.document["name"] == run.name
    assert Counter(held.points_in_order) == Counter(run.points)
    assert held.points_in_order == run.points
    assert held.params == run.params
    tags = {key: value for key, value in held.tags.items() if not key.startswith(("mlflow.", "mlproxy."))}
    assert tags == run.tags
    assert held.files == run.files
    assert (held.status, held.document["end_time"]) == (run.status, run.end_time)
    if run.status != "RUNNING":
        assert held.ended_last
