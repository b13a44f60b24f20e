"""What MLflow's Java client sends and reads, without Java: its requests, and its way with answers.

Usage: java.py RECORD.json, with MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and _PASSWORD, in an
environment that has MLflow (for its protobuf messages alone).

The shapes come from the client's source in MLflow's repository, `mlflow/java/client/src/main/java/
org/mlflow/tracking`, as of MLflow 3: paths, queries and fields from `MlflowClient.java` and
`MlflowProtobufMapper.java` (among them `run_uuid` next to `run_id`), headers and retries from
`MlflowHttpCaller.java`. The bodies are made as there, by protobuf's JSON printer from MLflow's own
messages with field names kept: indented, 64-bit integers as text, NaN and infinities as text. Answers
are merged into MLflow's messages with unknown fields ignored, so that an answer of a wrong type fails
as it does in Java.
"""

import base64
import http.client
import json
import os
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from mlflow.protos import model_registry_pb2 as registry
from mlflow.protos import service_pb2 as service

BASE_API_PATH = "api/2.0/mlflow"
BASE_MS = 1_700_000_000_000
ATTEMPTS = 3


class HttpError(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status} {body}")
        self.status = status


class HttpCaller:
    """`MlflowHttpCaller`: three attempts, whatever the error."""

    def __init__(self, uri: str, username: str, password: str) -> None:
        self._uri = urllib.parse.urlsplit(uri)
        credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {credentials}", "User-Agent": "mlflow-java-client/3.17.0"}

    def get(self, path: str, answer: Message, **query: str) -> Any:
        return self._call("GET", f"{path}?{urllib.parse.urlencode(query)}", None, answer)

    def post(self, path: str, request: Message, answer: Message) -> Any:
        return self._call("POST", path, request, answer)

    def patch(self, path: str, request: Message, answer: Message) -> Any:
        return self._call("PATCH", path, request, answer)

    def _call(self, method: str, path: str, request: Message | None, answer: Message) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                text = self._send(method, path, request)
            except HttpError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return json_format.Parse(text, answer, ignore_unknown_fields=True)
        raise AssertionError

    def _send(self, method: str, path: str, request: Message | None) -> str:
        headers, body = dict(self._headers), None
        if request is not None:
            body = json_format.MessageToJson(request, preserving_proto_field_name=True).encode()
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self._uri.hostname or "", self._uri.port, timeout=60)
        try:
            connection.request(method, f"/{BASE_API_PATH}/{path}", body, headers)
            got = connection.getresponse()
            text = got.read().decode()
        finally:
            connection.close()
        if not 200 <= got.status < 400:
            raise HttpError(got.status, text)
        return text


def main(record_file: Path) -> None:
    """One training, its model, and what is read back of both."""
    caller = HttpCaller(
        os.environ["MLFLOW_TRACKING_URI"],
        os.environ["MLFLOW_TRACKING_USERNAME"],
        os.environ["MLFLOW_TRACKING_PASSWORD"],
    )
    record = {"absent": absent_experiment(caller), **training(caller)}
    record |= reading(caller, record["experiment_id"], record["run_id"])
    record |= registering(caller, record["run_id"])
    record_file.write_text(json.dumps(record))


def absent_experiment(caller: HttpCaller) -> int:
    """The status that the client takes for an experiment that is not there."""
    try:
        caller.get("experiments/get-by-name", service.GetExperimentByName.Response(), experiment_name="none")
    except HttpError as error:
        return error.status
    return 200


def training(caller: HttpCaller) -> dict[str, Any]:
    """An experiment and a run with all that can be logged to it, ended."""
    made = caller.post(
        "experiments/create", service.CreateExperiment(name="java"), service.CreateExperiment.Response()
    )
    experiment_id = made.experiment_id
    tag = service.SetExperimentTag(experiment_id=experiment_id, key="language", value="Java")
    caller.post("experiments/set-experiment-tag", tag, service.SetExperimentTag.Response())
    create = service.CreateRun(experiment_id=experiment_id, start_time=BASE_MS, user_id="duke")
    info = caller.post("runs/create", create, service.CreateRun.Response()).run.info
    run = {"run_uuid": info.run_id, "run_id": info.run_id}
    for step, value in enumerate((0.5, float("nan"), float("inf"), 1e-300)):
        metric = service.LogMetric(**run, key="loss", value=value, timestamp=BASE_MS + step, step=step)
        caller.post("runs/log-metric", metric, service.LogMetric.Response())
    caller.post(
        "runs/log-parameter", service.LogParam(**run, key="lr", value="0.1"), service.LogParam.Response()
    )
    for key, value in (("stage", "first"), ("gone", "x"), ("stage", "last")):
        caller.post("runs/set-tag", service.SetTag(**run, key=key, value=value), service.SetTag.Response())
    caller.post(
        "runs/delete-tag", service.DeleteTag(run_id=info.run_id, key="gone"), service.DeleteTag.Response()
    )
    metrics = [
        service.Metric(key="accuracy", value=step / 4, timestamp=BASE_MS, step=step)
        for step in (-1, 0, 1 << 40)
    ]
    batch = service.LogBatch(
        run_id=info.run_id,
        metrics=metrics,
        params=[service.Param(key="depth", value="3")],
        tags=[service.RunTag(key="batched", value="ja ü")],
    )
    caller.post("runs/log-batch", batch, service.LogBatch.Response())
    end = service.UpdateRun(**run, status=service.FINISHED, end_time=BASE_MS + 60_000)
    caller.post("runs/update", end, service.UpdateRun.Response())
    return {"experiment_id": experiment_id, "run_id": info.run_id, "started": info.start_time}


def reading(caller: HttpCaller, experiment_id: str, run_id: str) -> dict[str, Any]:
    """What `getExperimentByName`, `getRun`, `searchRuns`, `getMetricHistory` and others read."""
    named = caller.get(
        "experiments/get-by-name", service.GetExperimentByName.Response(), experiment_name="java"
    )
    both = {"run_uuid": run_id, "run_id": run_id}
    run = caller.get("runs/get", service.GetRun.Response(), **both).run
    search = service.SearchRuns(
        experiment_ids=[experiment_id],
        filter="params.lr = '0.1'",
        max_results=1000,
        run_view_type=service.ACTIVE_ONLY,
        order_by=["metrics.accuracy DESC"],
    )
    found = caller.post("runs/search", search, service.SearchRuns.Response())
    experiments = caller.post(
        "experiments/search",
        service.SearchExperiments(max_results=1000, filter="name = 'java'", view_type=service.ACTIVE_ONLY),
        service.SearchExperiments.Response(),
    )
    history = caller.get(
        "metrics/get-history", service.GetMetricHistory.Response(), **both, metric_key="loss"
    )
    return {
        "by name": [named.experiment.experiment_id, {tag.key: tag.value for tag in named.experiment.tags}],
        "params": {param.key: param.value for param in run.data.params},
        "latest": {metric.key: repr(metric.value) for metric in run.data.metrics},
        "status": service.RunStatus.Name(run.info.status),
        "times": [run.info.start_time, run.info.end_time],
        "found": [item.info.run_id for item in found.runs],
        "experiments": [item.name for item in experiments.experiments],
        "history": [[item.step, item.timestamp, repr(item.value)] for item in history.metrics],
        "artifact uri": run.info.artifact_uri,
    }


def registering(caller: HttpCaller, run_id: str) -> dict[str, Any]:
    """A registered model with one version in a stage."""
    name = "java-model"
    caller.post(
        "registered-models/create",
        registry.CreateRegisteredModel(name=name),
        registry.CreateRegisteredModel.Response(),
    )
    create = registry.CreateModelVersion(name=name, run_id=run_id, source=f"runs:/{run_id}/model")
    made = caller.post("model-versions/create", create, registry.CreateModelVersion.Response()).model_version
    stage = registry.TransitionModelVersionStage(name=name, version=made.version, stage="Production")
    caller.post("model-versions/transition-stage", stage, registry.TransitionModelVersionStage.Response())
    caller.patch(
        "model-versions/update",
        registry.UpdateModelVersion(name=name, version=made.version, description="from Java"),
        registry.UpdateModelVersion.Response(),
    )
    by_number = {"name": name, "version": made.version}
    version = caller.get("model-versions/get", registry.GetModelVersion.Response(), **by_number).model_version
    latest = caller.get(
        "registered-models/get-latest-versions",
        registry.GetLatestVersions.Response(),
        name=name,
        stages="Production",
    )
    uri = caller.get(
        "model-versions/get-download-uri", registry.GetModelVersionDownloadUri.Response(), **by_number
    )
    searched = caller.get(
        "model-versions/search", registry.SearchModelVersions.Response(), filter=f"name='{name}'"
    )
    model = caller.get("registered-models/get", registry.GetRegisteredModel.Response(), name=name)
    return {
        "model": model.registered_model.name,
        "version": [version.version, version.current_stage, version.description, version.run_id],
        "latest versions": [item.version for item in latest.model_versions],
        "searched versions": [item.version for item in searched.model_versions],
        "download uri": uri.artifact_uri,
        "created recently": abs(version.creation_timestamp / 1000 - time.time()) < 3600,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
