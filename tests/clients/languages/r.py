"""What MLflow's R package sends and reads, without R.

The shapes come from the package's source in MLflow's repository, `mlflow/R/mlflow/R`, as of MLflow 2
and 3: `tracking-rest.R` (every leaf of a body goes through `as.character`, so that each number is a
text, 100000 even `1e+05`; fields that are NULL are left out; `httr` writes the body as JSON with single
values unboxed), `tracking-runs.R` (`run_uuid` next to `run_id`, `NaN` and `Infinity` as text, data
frames of a batch as rows), `tracking-experiments.R` and `model-registry.R` (PATCH and DELETE with a
body, a search by POST, logicals as `FALSE`). Older packages ask below `api/2.0/preview/mlflow`.
"""

from typing import Any

import httpx

BASE_MS = 1_700_000_000_123
STEPS = (0, 1, 100_000)
API, OLDER_API = "/api/2.0/mlflow", "/api/2.0/preview/mlflow"
Json = dict[str, Any]


class RestError(Exception):
    """`stop()` with what the package says of an answer that is not 200."""


class Client:
    """`mlflow_rest` on one server."""

    def __init__(self, url: str, token: str, api: str = API) -> None:
        headers = {
            "Authorization": f"Bearer {token}",
            "User-Agent": "mlflow-r-client/3.1.0",
            "Accept": "application/json, text/xml, application/xml, */*",
        }
        self._api = api
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)

    def rest(
        self, *path: str, verb: str = "GET", query: Json | None = None, data: Json | None = None
    ) -> Json:
        """One call."""
        body = None if data is None else as_character(data)
        answer = self._http.request(verb, "/".join([self._api, *path]), params=query, json=body)
        if answer.status_code != 200:
            fields = "; ".join(str(value) for value in answer.json().values())
            raise RestError(
                f"API request to endpoint '{'/'.join(path)}' failed with error code {answer.status_code}."
                f" Reponse body: '{fields}'"
            )
        return dict(answer.json())

    def close(self) -> None:
        self._http.close()


def as_character(value: Any) -> Any:
    """`rapply(data, as.character, how = "replace")`, and NULL left out."""
    if isinstance(value, dict):
        return {key: as_character(field) for key, field in value.items() if field is not None}
    if isinstance(value, list):
        return [as_character(item) for item in value]
    if isinstance(value, bool):
        return str(value).upper()
    return value if isinstance(value, str) else number_as_character(value)


def number_as_character(value: float) -> str:
    """R writes a number the shorter way: 100000 is `1e+05`."""
    fixed = f"{value:.15g}"
    digits = next(count for count in range(15) if count == 14 or float(f"{value:.{count}e}") == value)
    scientific = f"{value:.{digits}e}"
    return scientific if len(scientific) < len(fixed) else fixed


def train(client: Client) -> Json:
    """`mlflow_set_experiment`, `mlflow_start_run`, logging, `mlflow_end_run`; then what is read back."""
    missing = None
    try:
        client.rest("experiments", "get-by-name", query={"experiment_name": "R"})
    except RestError as error:
        missing = str(error)
    experiment = client.rest(
        "experiments", "create", verb="POST", data={"name": "R", "artifact_location": None}
    )
    experiment_id = experiment["experiment_id"]
    tag = {"experiment_id": experiment_id, "key": "language", "value": "R"}
    client.rest("experiments", "set-experiment-tag", verb="POST", data=tag)
    data = {
        "experiment_id": experiment_id,
        "user_id": "unknown",
        "start_time": BASE_MS,
        "tags": [{"key": "mlflow.source.name", "value": "train.R"}],
    }
    run_id = client.rest("runs", "create", verb="POST", data=data)["run"]["info"]["run_uuid"]
    run = {"run_uuid": run_id, "run_id": run_id}
    for step, value in enumerate(("0.5", "NaN", "Infinity", "-Infinity")):
        metric = {"key": "loss", "value": value, "timestamp": float(BASE_MS + step), "step": float(step)}
        client.rest("runs", "log-metric", verb="POST", data={**run, **metric})
    client.rest("runs", "log-parameter", verb="POST", data={**run, "key": "lr", "value": "0.1"})
    for key, value in (("stage", "first"), ("gone", "x"), ("stage", "last")):
        client.rest("runs", "set-tag", verb="POST", data={**run, "key": key, "value": value})
    client.rest("runs", "delete-tag", verb="POST", data={"run_id": run_id, "key": "gone"})
    rows = [
        {"key": "accuracy", "value": str(step / 4), "step": float(step), "timestamp": float(BASE_MS)}
        for step in STEPS
    ]
    batch = {
        "run_id": run_id,
        "metrics": rows,
        "params": [{"key": "depth", "value": 3.0}],
        "tags": [{"key": "batched", "value": "ja ü"}],
    }
    client.rest("runs", "log-batch", verb="POST", data=batch)
    end = {**run, "status": "FINISHED", "end_time": BASE_MS + 60_000}
    ended = client.rest("runs", "update", verb="POST", data=end)
    return {
        "missing": missing,
        "experiment_id": experiment_id,
        "run_id": run_id,
        "ended": ended["run_info"]["run_uuid"],
        **read(client, experiment_id, run_id),
    }


def read(client: Client, experiment_id: str, run_id: str) -> Json:
    """`mlflow_get_run`, `mlflow_search_runs`, `mlflow_search_experiments`, histories and artifacts."""
    both = {"run_uuid": run_id, "run_id": run_id}
    run = client.rest("runs", "get", query=both)["run"]
    searched = {
        "experiment_ids": [experiment_id],
        "filter": "params.depth = '3'",
        "run_view_type": "ACTIVE_ONLY",
        "order_by": [],
    }
    found = client.rest("runs", "search", verb="POST", data=searched)
    wanted = {"filter": None, "view_type": "ACTIVE_ONLY", "max_results": 1000, "order_by": []}
    experiments = client.rest("experiments", "search", verb="POST", data=wanted)
    history = client.rest("metrics", "get-history", query={**both, "metric_key": "loss"})
    return {
        "info": run["info"],
        "params": {param["key"]: param["value"] for param in run["data"]["params"]},
        "found": [item["info"]["run_id"] for item in found["runs"]],
        "experiments": [item["name"] for item in experiments["experiments"]],
        "history": [[item["step"], item["value"]] for item in history["metrics"]],
        "artifacts": client.rest("artifacts", "list", query=both),
    }


def register(client: Client, run_id: str) -> Json:
    """`mlflow_create_registered_model` and what follows, up to `mlflow_delete_model_version`."""
    name = "R.model"
    data: Json = {"name": name, "tags": [{"key": "language", "value": "R"}], "description": None}
    client.rest("registered-models", "create", verb="POST", data=data)
    source = {"name": name, "source": f"runs:/{run_id}/model", "run_id": run_id, "run_link": None}
    # Word for word the same twice in a row would be taken for one call whose answer was lost.
    versions = [
        client.rest("model-versions", "create", verb="POST", data={**source, "description": words})[
            "model_version"
        ]
        for words in ("the first", "the second")
    ]
    first = {"name": name, "version": versions[0]["version"]}
    stage = {**first, "stage": "Production", "archive_existing_versions": False}
    client.rest("model-versions", "transition-stage", verb="POST", data=stage)
    client.rest("model-versions", "update", verb="PATCH", data={**first, "description": "from R"})
    client.rest("model-versions", "set-tag", verb="POST", data={**first, "key": "k", "value": "v"})
    client.rest("registered-models", "update", verb="PATCH", data={"name": name, "description": "of R"})
    client.rest(
        "model-versions", "delete", verb="DELETE", data={"name": name, "version": versions[1]["version"]}
    )
    latest = client.rest("registered-models", "get-latest-versions", query={"name": name})
    wanted = {"filter": f"name = '{name}'", "max_results": 100, "order_by": [], "page_token": None}
    found = client.rest("registered-models", "search", verb="POST", data=wanted)
    return {
        "model": client.rest("registered-models", "get", query={"name": name})["registered_model"],
        "version": client.rest("model-versions", "get", query=first)["model_version"],
        "latest": [item["version"] for item in latest["model_versions"]],
        "found": [item["name"] for item in found["registered_models"]],
    }
