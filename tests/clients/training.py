"""A training job with the stock MLflow client that writes down everything it logged.

Usage: training.py RECORD.json. The only settings are MLflow's own variables. What the job logs goes
through the fluent API, as training scripts do it; the record holds what was handed to that API
(metric points with their timestamps, params, tags, the bytes of files) and never what a server said,
except for ids, times that the client library chose, and the bytes of files that the library wrote.
"""

import hashlib
import importlib.metadata
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

mpl.use("Agg")

EXPERIMENT = "training"
MODEL_NAME = "threshold"
EPOCHS = 12
BASE_MS = 1_700_000_000_000
IS_MLFLOW_3 = int(mlflow.__version__.split(".")[0]) >= 3


class Recorder:
    """What one run logged. Every method logs through MLflow and then notes it."""

    def __init__(self, run_id: str, start_time: int) -> None:
        self.run_id = run_id
        self.document: dict[str, Any] = {
            "run_id": run_id,
            "start_time": start_time,
            "points": [],
            "params": {},
            "tags": {},
            "deleted_tags": [],
            "files": {},
            "children": [],
        }

    def metrics(self, values: dict[str, float], step: int) -> None:
        timestamp = BASE_MS + 1000 * step
        mlflow.log_metrics(values, step=step, timestamp=timestamp)
        self.document["points"] += [[key, step, timestamp, repr(value)] for key, value in values.items()]

    def metric(self, key: str, value: float, step: int) -> None:
        timestamp = BASE_MS + 1000 * step + 1
        mlflow.log_metric(key, value, step=step, timestamp=timestamp)
        self.document["points"].append([key, step, timestamp, repr(value)])

    def params(self, values: dict[str, Any]) -> None:
        mlflow.log_params(values)
        self.document["params"] |= {key: str(value) for key, value in values.items()}

    def tag(self, key: str, value: str) -> None:
        mlflow.set_tag(key, value)
        self.document["tags"][key] = value

    def delete_tag(self, key: str) -> None:
        mlflow.delete_tag(key)
        self.document["tags"].pop(key)
        self.document["deleted_tags"].append(key)

    def file(self, path: str, content: bytes) -> None:
        self.document["files"][path] = hashlib.sha256(content).hexdigest()

    def downloaded_file(self, path: str) -> None:
        """A file whose bytes the library made."""
        self.file(path, Path(mlflow.artifacts.download_artifacts(f"runs:/{self.run_id}/{path}")).read_bytes())

    def ended(self, client: MlflowClient, status: str) -> dict[str, Any]:
        info = client.get_run(self.run_id).info
        self.document |= {"status": status, "end_time": info.end_time, "name": info.run_name}
        return self.document


def main(record_file: Path) -> None:
    """Train a parent with two children, then a run that fails; write the record."""
    started_ms = int(time.time() * 1000)
    client = MlflowClient()
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name="parent run", tags={"at-start": "yes"}) as run:
        parent = Recorder(run.info.run_id, run.info.start_time)
        parent.document["tags"]["at-start"] = "yes"
        log_values(parent)
        log_files(parent)
        model = log_model(parent)
        children = [train_child(client, parent, name) for name in ("first", "second")]
    record = parent.ended(client, "FINISHED") | {"children": children, "model": model}
    try:
        with mlflow.start_run(run_name="fails") as run:
            failing = Recorder(run.info.run_id, run.info.start_time)
            failing.metric("loss", 1.5, 0)
            raise RuntimeError("the training broke")
    except RuntimeError:
        failed = failing.ended(client, "FAILED")
    record_file.write_text(
        json.dumps(
            {
                "mlflow": mlflow.__version__,
                "packages": sorted(found.name.lower() for found in importlib.metadata.distributions()),
                "started_ms": started_ms,
                "ended_ms": int(time.time() * 1000),
                "experiment": EXPERIMENT,
                "runs": [record, failed],
            }
        )
    )


def log_values(run: Recorder) -> None:
    """Params, tags, metrics of every epoch, numbers that are hard to carry, and a dataset."""
    run.params({"learning rate": 0.1, "layers/one": 64, "name": "ünïcode “quoted”", "empty-ish": " "})
    run.tag("team", "vision")
    run.tag("stage", "start")
    run.tag("temporary", "x")
    for epoch in range(EPOCHS):
        run.metrics({"train/loss": 1 / (epoch + 1), "val loss": 1.1 / (epoch + 1)}, epoch)
        run.metric("accuracy", epoch / EPOCHS, epoch)
    run.metric("odd", math.nan, 0)
    run.metric("odd", math.inf, 1)
    run.metric("odd", -math.inf, 2)
    run.metric("odd", 5e-324, 4)
    run.metric("odd", 123456789.123456789, -5)
    run.tag("stage", "end")
    run.delete_tag("temporary")
    frame = pd.DataFrame({"x": [1.0, 2.0], "y": [0, 1]})
    mlflow.log_input(mlflow.data.from_pandas(frame, source="memory", name="points"), context="training")


def log_files(run: Recorder) -> None:
    """Files of every kind that the fluent API makes, one of them written twice, and a directory."""
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2, 3])
    mlflow.log_figure(figure, "plots/curve.png")
    run.downloaded_file("plots/curve.png")
    mlflow.log_dict({"a": [1, 2], "ü": None}, "settings.json")
    run.downloaded_file("settings.json")
    mlflow.log_text("first", "notes.txt")
    mlflow.log_text("zweite Fassung", "notes.txt")
    run.file("notes.txt", b"zweite Fassung")
    mlflow.log_table(pd.DataFrame({"in": ["q"], "out": ["a"]}), "table.json")
    run.downloaded_file("table.json")
    run.document["tags"]["mlflow.loggedArtifacts"] = '[{"path": "table.json", "type": "table"}]'
    with tempfile.TemporaryDirectory() as folder:
        contents = {
            "empty.txt": b"",
            "summary.txt": b"all well\n",
            "deep/er/weights.bin": np.random.default_rng(7).bytes(300_000),
            "deep/with space & ünïcode.txt": b"x",
        }
        for name, content in contents.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            run.file(f"report/{name}", content)
        mlflow.log_artifacts(folder, "report")


def log_model(run: Recorder) -> dict[str, Any]:
    """Log, register and load back a model; where its files are and what they are."""
    features, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    model = LogisticRegression().fit(features, labels)
    place = {"name": "model"} if IS_MLFLOW_3 else {"artifact_path": "model"}
    logged = mlflow.sklearn.log_model(
        model,
        **place,
        signature=infer_signature(features, labels),
        registered_model_name=MODEL_NAME,
        pip_requirements=["scikit-learn"],
    )
    expected = model.predict(features).tolist()
    version = str(logged.registered_model_version)
    for uri in (logged.model_uri, f"runs:/{run.run_id}/model", f"models:/{MODEL_NAME}/{version}"):
        loaded = mlflow.pyfunc.load_model(uri).predict(features)
        if list(loaded) != expected:
            raise SystemExit(f"{uri} predicts {loaded}, expected {expected}")
    folder = Path(mlflow.artifacts.download_artifacts(logged.model_uri))
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "registered_model_meta"  # written by the download itself
    }
    return {"name": MODEL_NAME, "version": version, "files": files}


def train_child(client: MlflowClient, parent: Recorder, name: str) -> dict[str, Any]:
    """A nested run with metrics of its own."""
    with mlflow.start_run(run_name=name, nested=True) as run:
        child = Recorder(run.info.run_id, run.info.start_time)
        child.params({"fold": name})
        for epoch in range(EPOCHS):
            child.metric("loss", 2 / (epoch + 1), epoch)
        child.tag("mlflow.note.content", f"child of {parent.run_id}")
    return child.ended(client, "FINISHED")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
