"""A request to every route that names something of an experiment, to be filled in for either side."""

from dataclasses import dataclass
from typing import Any

from tests.integration.access.team import MLFLOW, MLFLOW_3, Json, Side, trace_of


@dataclass(frozen=True, slots=True)
class Ask:
    """A request about one side. Its own side is answered with `status`."""

    method: str
    path: str
    json: Json | None = None
    params: Json | None = None
    content: bytes | None = None
    status: int = 200

    def to(self, side: Side) -> Json:
        """The request, filled in."""
        request = {"json": filled(self.json, side), "params": filled(self.params, side)}
        if self.content is not None:
            request["content"] = self.content
        return {name: value for name, value in request.items() if value is not None}


def filled(value: Any, side: Side) -> Any:
    """The texts in a request, with what the side has."""
    if isinstance(value, dict):
        return {key: filled(item, side) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, side) for item in value]
    return value.format(side=side) if isinstance(value, str) else value


RUN, EXP, MODEL = {"run_id": "{side.run}"}, {"experiment_id": "{side.experiment}"}, "{side.model}"
EXPS = {"experiment_ids": ["{side.experiment}"]}
POINT = {"key": "loss", "value": 1.0, "timestamp": 2, "step": 1}
VERSION = {"name": "{side.registered}", "version": "1"}
FILE = "/api/2.0/mlflow-artifacts/artifacts/{side.folder}/file.txt"
MPU = "/api/2.0/mlflow-artifacts/mpu"
TRACE = f"{MLFLOW_3}/traces/{{side.trace}}"
TRACE_2 = f"{MLFLOW}/traces/{{side.trace}}"
DATASET = f"{MLFLOW_3}/datasets/{{side.dataset}}"
LOGGED = f"{MLFLOW}/logged-models/{MODEL}"
FEEDBACK = {
    "assessment": {
        "assessment_name": "good",
        "feedback": {"value": True},
        "source": {"source_type": "HUMAN", "source_id": "ada"},
    }
}
LOCATION = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": EXP}
SCORER = {**EXP, "name": "judge"}
MODEL_JSON = (
    '{{"artifact_path": "model", "flavors": {{}}, "utc_time_created": "2026-01-01", "run_id": "{side.run}"}}'
)
DATASET_INPUT = {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "here"}}

# In the order in which its own side can be asked: what destroys something comes last.
ASKS = [
    Ask("POST", f"{MLFLOW}/runs/log-metric", {**RUN, **POINT}),
    Ask("POST", f"{MLFLOW}/runs/log-batch", {**RUN, "metrics": [POINT]}),
    Ask("POST", f"{MLFLOW}/runs/log-parameter", {**RUN, "key": "a", "value": "1"}),
    Ask("POST", f"{MLFLOW}/runs/set-tag", {**RUN, "key": "t", "value": "1"}),
    Ask("POST", f"{MLFLOW}/runs/delete-tag", {**RUN, "key": "t"}),
    Ask("POST", f"{MLFLOW}/runs/create", {**EXP, "start_time": 1}),
    Ask("POST", f"{MLFLOW}/runs/update", {**RUN, "status": "FINISHED"}),
    Ask("GET", f"{MLFLOW}/runs/get", params=RUN),
    Ask("POST", f"{MLFLOW}/runs/search", EXPS),
    Ask("POST", f"{MLFLOW}/runs/log-model", {**RUN, "model_json": MODEL_JSON}),
    Ask("POST", f"{MLFLOW}/runs/log-inputs", {**RUN, "datasets": [DATASET_INPUT]}),
    Ask("POST", f"{MLFLOW}/runs/outputs", {**RUN, "models": [{"model_id": MODEL, "step": 0}]}),
    Ask("GET", f"{MLFLOW}/metrics/get-history", params={**RUN, "metric_key": "loss"}),
    Ask("GET", f"{MLFLOW}/metrics/get-history-bulk", params={**RUN, "metric_key": "loss"}),
    Ask(
        "GET",
        f"{MLFLOW}/metrics/get-history-bulk-interval",
        params={"run_ids": "{side.run}", "metric_key": "loss"},
    ),
    Ask("POST", f"{MLFLOW}/experiments/search-datasets", EXPS),
    Ask("GET", f"{MLFLOW}/experiments/get", params=EXP),
    Ask("GET", f"{MLFLOW}/experiments/get-by-name", params={"experiment_name": "{side.name}"}),
    Ask("POST", f"{MLFLOW}/experiments/create", {"name": "{side.name}/another"}),
    Ask("POST", f"{MLFLOW}/experiments/set-experiment-tag", {**EXP, "key": "t", "value": "1"}),
    Ask("POST", f"{MLFLOW}/experiments/delete-experiment-tag", {**EXP, "key": "t"}),
    Ask("POST", f"{MLFLOW}/experiments/update", {**EXP, "new_name": "{side.name}"}),
    Ask("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": "{side.folder}"}),
    Ask("PUT", FILE, content=b"1"),
    Ask("GET", FILE),
    Ask("POST", f"{MPU}/create/{{side.folder}}", {"path": "f", "num_parts": 1}, status=501),
    Ask("POST", f"{MPU}/complete/{{side.folder}}", {"path": "f", "upload_id": "1"}, status=501),
    Ask("POST", f"{MPU}/abort/{{side.folder}}", {"path": "f", "upload_id": "1"}, status=501),
    Ask("GET", "/api/2.0/mlflow-artifacts/presigned/{side.folder}/file.txt", status=501),
    Ask("GET", f"{MLFLOW}/artifacts/list", params=RUN),
    Ask("GET", "/get-artifact", params={**RUN, "path": "file.txt"}),
    Ask("GET", "/ajax-api/2.0/mlflow/get-artifact", params={**RUN, "path": "file.txt"}),
    Ask("POST", "/ajax-api/2.0/mlflow/upload-artifact", params={**RUN, "path": "up.txt"}, content=b"1"),
    Ask("GET", "/model-versions/get-artifact", params={**VERSION, "path": "MLmodel"}),
    Ask("GET", "/ajax-api/2.0/mlflow/model-versions/get-artifact", params={**VERSION, "path": "MLmodel"}),
    Ask("POST", f"{MLFLOW}/artifacts/presigned-download-url", {**RUN, "path": "file.txt"}, status=501),
    Ask(
        "POST",
        f"{MLFLOW}/model-versions/create",
        {"name": "{side.registered}", "source": "runs:/{side.run}/model"},
    ),
    Ask("PATCH", f"{MLFLOW}/model-versions/update", {**VERSION, "description": "d"}),
    Ask("POST", f"{MLFLOW}/model-versions/set-tag", {**VERSION, "key": "t", "value": "1"}),
    Ask("DELETE", f"{MLFLOW}/model-versions/delete-tag", {**VERSION, "key": "t"}),
    Ask("POST", f"{MLFLOW}/logged-models", {**EXP, "name": "another"}),
    Ask("POST", f"{MLFLOW}/logged-models/search", EXPS),
    Ask("GET", LOGGED),
    Ask("PATCH", LOGGED, {"status": "LOGGED_MODEL_READY"}),
    Ask("PATCH", f"{LOGGED}/tags", {"tags": [{"key": "t", "value": "1"}]}),
    Ask("DELETE", f"{LOGGED}/tags/t"),
    Ask("POST", f"{LOGGED}/params", {"params": [{"key": "p", "value": "1"}]}),
    Ask("GET", f"{LOGGED}/artifacts/directories"),
    Ask("GET", f"{LOGGED}/artifacts/files", params={"artifact_file_path": "x"}, status=404),
    Ask("POST", f"{MLFLOW_3}/traces", trace_of("{side.experiment}", "tr-of-{side.registered}")),
    Ask("POST", f"{MLFLOW_3}/traces/search", {"locations": [LOCATION]}),
    Ask("GET", f"{MLFLOW_3}/traces/get", params={"trace_id": "{side.trace}"}, status=404),
    Ask("GET", f"{MLFLOW_3}/traces/batchGet", params={"trace_ids": "{side.trace}"}),
    Ask("POST", f"{MLFLOW_3}/traces/batchGetInfos", {"trace_ids": ["{side.trace}"]}),
    Ask(
        "POST",
        f"{MLFLOW_3}/traces/metrics",
        {
            **EXPS,
            "view_type": "TRACES",
            "metric_name": "trace_count",
            "aggregations": [{"aggregation_type": "COUNT"}],
        },
    ),
    Ask(
        "POST",
        f"{MLFLOW_3}/traces/calculate-filter-correlation",
        {**EXPS, "filter_string1": "trace.status = 'OK'", "filter_string2": "trace.status = 'OK'"},
    ),
    Ask("GET", TRACE),
    Ask("POST", f"{TRACE}/assessments", FEEDBACK),
    Ask("GET", f"{TRACE}/assessments/a-1", status=404),
    Ask("PATCH", f"{TRACE}/assessments/a-1", {"assessment": {}, "update_mask": "rationale"}, status=404),
    Ask("DELETE", f"{TRACE}/assessments/a-1"),
    Ask("PATCH", f"{TRACE}/tags", {"key": "t", "value": "1"}),
    Ask("DELETE", f"{TRACE}/tags", {"key": "t"}),
    Ask("POST", f"{MLFLOW}/traces", {**EXP, "timestamp_ms": 1}),
    Ask("GET", f"{MLFLOW}/traces", params={"experiment_ids": "{side.experiment}"}),
    Ask("POST", f"{MLFLOW}/traces/link-to-run", {**RUN, "trace_ids": ["{side.trace}"]}),
    Ask(
        "POST",
        f"{MLFLOW}/traces/link-prompts",
        {"trace_id": "{side.trace}", "prompt_versions": [{"name": "p", "version": "1"}]},
    ),
    Ask("PATCH", TRACE_2, {"timestamp_ms": 2, "status": "OK"}),
    Ask("GET", f"{TRACE_2}/info"),
    Ask("PATCH", f"{TRACE_2}/tags", {"key": "t", "value": "1"}),
    Ask("DELETE", f"{TRACE_2}/tags", {"key": "t"}),
    Ask("GET", "/ajax-api/2.0/mlflow/get-trace-artifact", params={"request_id": "{side.trace}"}, status=404),
    Ask("GET", "/ajax-api/3.0/mlflow/get-trace-artifact", params={"request_id": "{side.trace}"}, status=404),
    Ask("POST", f"{MLFLOW_3}/datasets/create", {**EXPS, "name": "another"}),
    Ask("POST", f"{MLFLOW_3}/datasets/search", EXPS),
    Ask("GET", f"{MLFLOW_3}/datasets/search", params=EXPS),
    Ask("GET", DATASET),
    Ask("PATCH", f"{DATASET}/tags", {"tags": '{{"t": "1"}}'}),
    Ask("DELETE", f"{DATASET}/tags/t"),
    Ask("POST", f"{DATASET}/records", {"records": '[{{"inputs": {{"q": "1"}}}}]'}),
    Ask("GET", f"{DATASET}/records"),
    Ask("DELETE", f"{DATASET}/records", {"dataset_record_ids": ["dr-1"]}),
    Ask("GET", f"{DATASET}/experiment-ids"),
    Ask("POST", f"{DATASET}/add-experiments", EXPS),
    Ask("GET", f"{MLFLOW_3}/scorers/list", params=EXP),
    Ask("GET", f"{MLFLOW_3}/scorers/versions", params=SCORER),
    Ask("GET", f"{MLFLOW_3}/scorers/get", params=SCORER),
    Ask("POST", f"{MLFLOW_3}/scorers/register", {**SCORER, "serialized_scorer": "{{}}"}),
    Ask("PUT", f"{MLFLOW_3}/scorers/online-config", SCORER, status=501),
    Ask("GET", "/api/2.0/mlproxy/runs/{side.run}"),
    Ask("GET", "/api/2.0/mlproxy/verify/{side.run}", status=400),
    Ask("DELETE", f"{MLFLOW_3}/scorers/delete", SCORER),
    Ask("POST", f"{DATASET}/remove-experiments", {"experiment_ids": []}),
    Ask("DELETE", DATASET),
    Ask("DELETE", f"{MLFLOW}/model-versions/delete", VERSION),
    Ask("DELETE", FILE),
    Ask("DELETE", LOGGED),
    Ask("POST", f"{MLFLOW_3}/traces/delete-traces", {**EXP, "request_ids": ["{side.trace}"]}),
    Ask("POST", f"{MLFLOW}/traces/delete-traces", {**EXP, "request_ids": ["tr-1"]}),
    Ask("POST", f"{MLFLOW}/runs/delete", RUN),
    Ask("POST", f"{MLFLOW}/runs/restore", RUN),
    Ask("POST", f"{MLFLOW}/experiments/delete", EXP),
    Ask("POST", f"{MLFLOW}/experiments/restore", EXP),
]
