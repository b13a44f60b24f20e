"""The features of MLflow's library that lean on a server, each used once and checked by the client itself.

Usage: features.py RECORD.json. The only settings are MLflow's own variables. Each feature that breaks
is noted with what it raised and spoils no other; the record holds what the tests compare.
"""

import hashlib
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
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

MAJOR = mlflow.__version__.split(".")[0]
IS_MLFLOW_3 = int(MAJOR) >= 3
FEATURES = np.array([[0.0], [1.0], [2.0], [3.0]])
LABELS = np.array([0, 0, 1, 1])
DEADLINE_SECONDS = 120
Facts = dict[str, Any]


class Doubling(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Says everything twice as loud, with what its artifact holds on top."""

    def load_context(self, context: Any) -> None:
        self.offset = float(Path(context.artifacts["offset"]).read_text())

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return np.asarray(model_input) * 2 + self.offset


def main(record_file: Path) -> None:
    """Use every feature and write down what came of it."""
    mlflow.set_experiment(f"{MAJOR} features")
    features: list[Callable[[], Facts]] = [sklearn_model, pyfunc_model, autologging, evaluation]
    features += [images_tables_figures, system_metrics, tracing]
    record: Facts = {
        "mlflow": mlflow.__version__,
        "packages": sorted(found.name.lower() for found in importlib.metadata.distributions()),
    }
    for feature in features:
        started = time.monotonic()
        try:
            record[feature.__name__] = feature()
        except Exception:
            record[feature.__name__] = {"raised": traceback.format_exc()}
            while mlflow.active_run():
                mlflow.end_run("FAILED")
        print(feature.__name__, round(time.monotonic() - started, 1), flush=True)
    record_file.write_text(json.dumps(record))


def sklearn_model() -> Facts:
    """Logged, registered, and loaded back by every kind of address."""
    name = f"{MAJOR}-sklearn"
    model = LogisticRegression().fit(FEATURES, LABELS)
    with mlflow.start_run() as run:
        logged = mlflow.sklearn.log_model(
            model,
            **place("model"),
            signature=infer_signature(FEATURES, LABELS),
            input_example=FEATURES[:2],
            registered_model_name=name,
            pip_requirements=["scikit-learn"],
        )
    MlflowClient().set_registered_model_alias(name, "champion", "1")
    addresses = addresses_of(logged, run.info.run_id, name)
    expected = model.predict(FEATURES).tolist()
    return {
        "run_id": run.info.run_id,
        "files": files_of(logged.model_uri),
        "expected": expected,
        "pyfunc": {uri: listed(mlflow.pyfunc.load_model(uri).predict(FEATURES)) for uri in addresses},
        "native": {uri: listed(mlflow.sklearn.load_model(uri).predict(FEATURES)) for uri in addresses},
    }


def pyfunc_model() -> Facts:
    """A model of one's own with a file of its own, likewise."""
    name = f"{MAJOR}-pyfunc"
    offset = Path("offset.txt")
    offset.write_text("0.5")
    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            python_model=Doubling(),
            artifacts={"offset": str(offset)},
            **place("nested/model" if not IS_MLFLOW_3 else "own model"),
            registered_model_name=name,
            pip_requirements=[],
        )
    MlflowClient().set_registered_model_alias(name, "champion", "1")
    addresses = [logged.model_uri, f"models:/{name}/1", f"models:/{name}@champion"]
    return {
        "run_id": run.info.run_id,
        "files": files_of(logged.model_uri),
        "expected": (FEATURES * 2 + 0.5).tolist(),
        "pyfunc": {uri: listed(mlflow.pyfunc.load_model(uri).predict(FEATURES)) for uri in addresses},
    }


def autologging() -> Facts:
    """What scikit-learn logs by itself, its model included."""
    mlflow.autolog(log_input_examples=True, silent=True)
    try:
        with mlflow.start_run() as run:
            LogisticRegression(C=0.5).fit(FEATURES, LABELS)
    finally:
        mlflow.autolog(disable=True, silent=True)
    data = MlflowClient().get_run(run.info.run_id).data
    loaded = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
    return {
        "run_id": run.info.run_id,
        "params": data.params,
        "metrics": {key: repr(value) for key, value in data.metrics.items()},
        "predicts": loaded.predict(FEATURES).tolist(),
    }


def evaluation() -> Facts:
    """A classifier's predictions, with the files that evaluating makes."""
    frame = pd.DataFrame({"x": FEATURES[:, 0], "label": LABELS, "said": LABELS})
    data = mlflow.data.from_pandas(
        frame, source="memory", name="labelled", targets="label", predictions="said"
    )
    evaluate = mlflow.models.evaluate if IS_MLFLOW_3 else mlflow.evaluate
    with mlflow.start_run() as run:
        result = evaluate(data=data, model_type="classifier", evaluators=["default"])
    stored = MlflowClient().get_run(run.info.run_id).data.metrics
    return {
        "run_id": run.info.run_id,
        "metrics": {key: repr(float(value)) for key, value in result.metrics.items()},
        "stored": {key: repr(value) for key, value in stored.items()},
        "files": files_of(f"runs:/{run.info.run_id}/"),
    }


def images_tables_figures() -> Facts:
    """`log_image` by file and by step, `log_table` twice, `log_figure`, `log_dict`, `log_text`."""
    client = MlflowClient()
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    with mlflow.start_run() as run:
        mlflow.log_image(image, "picture.png")
        for step in range(2):
            mlflow.log_image(image, key="training", step=step)
        mlflow.log_table({"in": ["q"], "out": ["a"]}, "table.json")
        mlflow.log_table({"in": ["r"], "out": ["b"]}, "table.json")
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        mlflow.log_figure(figure, "plots/curve.png")
        mlflow.log_dict({"a": [1, None], "ü": "x"}, "settings.json")
        mlflow.log_text("text", "notes.md")
        client.log_image(run.info.run_id, image, key="training", step=2)
    table = mlflow.load_table("table.json", run_ids=[run.info.run_id])
    return {
        "run_id": run.info.run_id,
        "table": table[["in", "out"]].to_numpy().tolist(),
        "settings": mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/settings.json"),
        "text": mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes.md"),
        "size": list(mlflow.artifacts.load_image(f"runs:/{run.info.run_id}/picture.png").size),
        "files": files_of(f"runs:/{run.info.run_id}/"),
    }


def system_metrics() -> Facts:
    """What MLflow's own thread measures of the machine."""
    if "psutil" not in {found.name for found in importlib.metadata.distributions()}:
        return {"absent": "psutil"}
    mlflow.set_system_metrics_sampling_interval(0.2)
    mlflow.set_system_metrics_samples_before_logging(1)
    client = MlflowClient()
    with mlflow.start_run(log_system_metrics=True) as run:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline and not client.get_run(run.info.run_id).data.metrics:
            time.sleep(0.1)
    keys = sorted(client.get_run(run.info.run_id).data.metrics)
    points = {key: client.get_metric_history(run.info.run_id, key) for key in keys}
    return {
        "run_id": run.info.run_id,
        "points": [
            [key, item.step, item.timestamp, repr(item.value)] for key in keys for item in points[key]
        ],
    }


def tracing() -> Facts:
    """A traced function with a traced call inside it, in a run."""
    if not IS_MLFLOW_3:
        return {
            "absent": "OpenTelemetry that MLflow 2.22 hands its spans to: with 1.45 it loses them anywhere"
        }

    @mlflow.trace(span_type="TOOL", attributes={"kind": "inner"})
    def inner(x: int) -> int:
        return x + 1

    @mlflow.trace
    def outer(x: int) -> int:
        return inner(x) * 2

    with mlflow.start_run() as run:
        said = outer(3)
    # The client uploads a trace's spans in a thread of its own.
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := traces_of(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    [trace] = found
    return {
        "run_id": run.info.run_id,
        "said": said,
        "spans": sorted(span.name for span in trace.data.spans),
        "inputs": trace.data.spans[0].inputs,
        "outputs": trace.data.spans[0].outputs,
    }


def traces_of(run: Any) -> list[Any]:
    """The traces that were made in a run, with their spans."""
    asked: Facts = {"experiment_ids": [run.info.experiment_id], "run_id": run.info.run_id}
    return list(mlflow.search_traces(**asked, return_type="list"))


def place(name: str) -> dict[str, str]:
    """Where a model goes, in the words of the client's version."""
    return {"name": name} if IS_MLFLOW_3 else {"artifact_path": name}


def addresses_of(logged: Any, run_id: str, name: str) -> list[str]:
    """Every address of a logged and registered model."""
    return [logged.model_uri, f"runs:/{run_id}/model", f"models:/{name}/1", f"models:/{name}@champion"]


def files_of(uri: str) -> dict[str, str]:
    """The files below an address, by their digests."""
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "registered_model_meta"  # written by the download itself
    }


def listed(values: Any) -> Any:
    """Predictions in a form that JSON has."""
    return np.asarray(values).tolist()


if __name__ == "__main__":
    # Autologging would load its model in another process to see what it needs, and take long over it.
    os.environ["MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT"] = "1"
    main(Path(sys.argv[1]))
