"""Clients of MLflow 1.x: the routes below `/api/2.0/preview` and those that later versions dropped."""

from pathlib import Path

import httpx
import pytest

from server.api.endpoints import MLFLOW_2, Endpoint
from server.bootstrap import build
from server.settings import Settings
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess

PREVIEW = "/api/2.0/preview/mlflow"
# What MLflow 1.x mounted below both prefixes.
ROUTES = [
    *[("POST", f"experiments/{name}") for name in ("create", "delete", "restore", "update", "search")],
    *[("GET", f"experiments/{name}") for name in ("get", "get-by-name", "list", "search")],
    ("POST", "experiments/set-experiment-tag"),
    *[("POST", f"runs/{name}") for name in ("create", "update", "delete", "restore", "search", "log-metric")],
    *[
        ("POST", f"runs/{name}")
        for name in ("log-parameter", "log-batch", "log-model", "set-tag", "delete-tag")
    ],
    ("GET", "runs/get"),
    ("GET", "metrics/get-history"),
    ("GET", "artifacts/list"),
    ("POST", "registered-models/create"),
    ("POST", "registered-models/rename"),
    ("PATCH", "registered-models/update"),
    ("DELETE", "registered-models/delete"),
    ("GET", "registered-models/get"),
    ("GET", "registered-models/search"),
    ("GET", "registered-models/list"),
    ("POST", "registered-models/get-latest-versions"),
    ("GET", "registered-models/get-latest-versions"),
    ("POST", "registered-models/set-tag"),
    ("DELETE", "registered-models/delete-tag"),
    ("POST", "model-versions/create"),
    ("PATCH", "model-versions/update"),
    ("POST", "model-versions/transition-stage"),
    ("DELETE", "model-versions/delete"),
    ("GET", "model-versions/get"),
    ("GET", "model-versions/search"),
    ("GET", "model-versions/get-download-uri"),
    ("POST", "model-versions/set-tag"),
    ("DELETE", "model-versions/delete-tag"),
]


@pytest.mark.asyncio
async def test_every_route_is_there_twice(tmp_path: Path) -> None:
    """Each route of 1.x is below the preview prefix too, with the same permission and the same handler."""
    server = await build(Settings(data_dir=tmp_path), replays=False)
    try:
        table = {
            (method, route.path): route
            for route in server.routes
            if isinstance(route, Endpoint)
            for method in route.methods or ()
        }
        for method, path in ROUTES:
            preview, plain = table[(method, f"{PREVIEW}/{path}")], table[(method, f"{MLFLOW_2[0]}/{path}")]
            assert preview.permission is plain.permission
            assert preview.asgi_app is plain.asgi_app
    finally:
        await server.stop()


def test_a_job_below_the_preview_prefix(database_url: str, tmp_path: Path) -> None:
    """A run, its metrics, files and model are written and read below the preview prefix alone."""
    url = database_url if database_url.startswith("postgres") else None
    with (
        ServerProcess.start(tmp_path, MLPROXY_DATABASE_URL=url) as server,
        httpx.Client(trust_env=False) as http,
    ):

        def call(method: str, path: str, **fields: object) -> dict[str, object]:
            sent = {"params": fields} if method == "GET" else {"json": fields}
            answer = http.request(method, f"{server.url}{PREVIEW}/{path}", **sent)  # type: ignore[arg-type]
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        experiment_id = call("POST", "experiments/create", name="old")["experiment_id"]
        run = call("POST", "runs/create", experiment_id=experiment_id, start_time=1, user_id="ann")["run"]
        run_id = run["info"]["run_uuid"]  # type: ignore[index]
        call("POST", "runs/log-metric", run_uuid=run_id, key="loss", value=0.5, timestamp=1, step=3)
        call("POST", "runs/log-parameter", run_uuid=run_id, key="rate", value="0.1")
        call("POST", "runs/update", run_uuid=run_id, status="FINISHED", end_time=2)
        history = call("GET", "metrics/get-history", run_uuid=run_id, metric_key="loss")
        assert history["metrics"] == [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 3}]
        found = call("POST", "runs/search", experiment_ids=[experiment_id], filter="params.rate = '0.1'")
        assert len(found["runs"]) == 1  # type: ignore[arg-type]
        assert "root_uri" in call("GET", "artifacts/list", run_uuid=run_id)
        listed = call("GET", "experiments/list", view_type="ACTIVE_ONLY", max_results=1)
        assert len(listed["experiments"]) == 1  # type: ignore[arg-type]
        token = str(listed["next_page_token"])
        assert call("GET", "experiments/list", page_token=token)["experiments"]
        call("POST", "registered-models/create", name="m")
        models = call("GET", "registered-models/list", max_results=10)["registered_models"]
        assert [item["name"] for item in models] == ["m"]  # type: ignore[attr-defined]


def test_a_client_of_1_30(database_url: str, tmp_path: Path) -> None:
    """A job with the client of MLflow 1.30 runs to its end: tracking, artifacts, registry with stages."""
    python = client_python("mlflow1")
    url = database_url if database_url.startswith("postgres") else None
    with ServerProcess.start(tmp_path / "data", MLPROXY_DATABASE_URL=url) as server:
        run_client(python, "mlflow1.py", server.url, folder=tmp_path / "client")
