"""A server with two teams on it, and a key that is limited to the experiments of one of them."""

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx

from server.bootstrap import Server

Json = dict[str, Any]
MLFLOW = "/api/2.0/mlflow"
MLFLOW_3 = "/api/3.0/mlflow"
PATTERNS = ["team-a/*", "shared"]
MINE, THEIRS = "team-a/vision", "team-b/secret"
OWN_MODEL, THEIR_MODEL = "vision", "secret"


@dataclass(frozen=True, slots=True)
class Side:
    """One experiment with one of everything."""

    experiment: str
    name: str
    run: str
    model: str
    trace: str
    dataset: str
    registered: str

    @property
    def folder(self) -> str:
        """Where the run's files are."""
        return f"{self.experiment}/{self.run}/artifacts"


@dataclass(frozen=True, slots=True)
class Team:
    """A server, the admin who set it up, and a limited key."""

    server: Server
    runner: asyncio.Runner
    key: str
    mine: Side
    theirs: Side

    def ask(self, method: str, path: str, *, key: str | None = None, **request: Any) -> httpx.Response:
        """The answer to a request with the limited key, or another one."""
        headers = {"Authorization": f"Bearer {key or self.key}", **request.pop("headers", {})}
        return self.runner.run(send(self.server.door, method, path, headers=headers, **request))

    def admin(self, method: str, path: str, **request: Any) -> Json:
        """The answer to the admin, who may do it."""
        return as_admin(self.server, self.runner, method, path, **request)


async def send(door: Any, method: str, path: str, **request: Any) -> httpx.Response:
    """The answer to one request."""
    transport = httpx.ASGITransport(app=door)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.request(method, path, **request)


def as_admin(server: Server, runner: asyncio.Runner, method: str, path: str, **request: Any) -> Json:
    """The answer to an admin on the machine, who may do everything."""
    answer = runner.run(send(server.admin_door, method, path, **request))
    assert answer.status_code == 200, (path, answer.text)
    return dict(answer.json())


def make_key(server: Server, runner: asyncio.Runner, name: str, **fields: Any) -> str:
    """A new key in clear."""
    made = as_admin(server, runner, "POST", "/api/2.0/mlproxy/keys", json={"name": name, **fields})
    return str(made["key"])


def trace_of(experiment: str, trace_id: str) -> Json:
    """A trace to start."""
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info = {"trace_id": trace_id, "trace_location": location, "request_time": "2026-01-01T00:00:00Z"}
    return {"trace": {"trace_info": {**info, "state": "OK"}}}


def make_side(server: Server, runner: asyncio.Runner, name: str, registered: str) -> Side:
    """An experiment with one of everything that a client can make."""

    def post(path: str, body: Json, prefix: str = MLFLOW) -> Json:
        return as_admin(server, runner, "POST", f"{prefix}/{path}", json=body)

    experiment = post("experiments/create", {"name": name})["experiment_id"]
    run = post("runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]["run_id"]
    point = {"key": "loss", "value": 1.0, "timestamp": 1, "step": 0}
    post("runs/log-metric", {"run_id": run, **point})
    path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/model/MLmodel"
    as_admin(server, runner, "PUT", path, content=b"x")
    model = post("logged-models", {"experiment_id": experiment, "name": "net", "source_run_id": run})
    trace = f"tr-{registered}"
    post("traces", trace_of(experiment, trace), MLFLOW_3)
    dataset = post(
        "datasets/create", {"name": f"{registered} data", "experiment_ids": [experiment]}, MLFLOW_3
    )
    scorer = {"experiment_id": experiment, "name": "judge", "serialized_scorer": "{}"}
    post("scorers/register", scorer, MLFLOW_3)
    post("registered-models/create", {"name": registered})
    post("model-versions/create", {"name": registered, "source": f"runs:/{run}/model", "run_id": run})
    return Side(
        experiment,
        name,
        run,
        model["model"]["info"]["model_id"],
        trace,
        dataset["dataset"]["dataset_id"],
        registered,
    )
