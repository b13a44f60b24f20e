"""Flows about models: logged, registered, loaded back; what autologging and evaluation log."""

import tempfile
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import infer_signature
from recording import VERSION, FlowSkippedError, Recorder, files_below, flow
from sklearn.linear_model import LogisticRegression
from tracking import BASE_MS, experiment

IS_3 = VERSION >= (3, 0)
FEATURES = np.array([[0.0], [1.0], [2.0], [3.0]])
LABELS = np.array([0, 0, 1, 1])
REQUIREMENTS = ["scikit-learn"]


def threshold() -> LogisticRegression:
    """A model that says 1 above 1.5."""
    return LogisticRegression().fit(FEATURES, LABELS)


def log_threshold(name: str = "model", **options: Any) -> Any:
    """Logs it to the active run."""
    place = {"name": name} if IS_3 else {"artifact_path": name}
    signature = infer_signature(FEATURES, LABELS)
    return mlflow.sklearn.log_model(
        threshold(), **place, signature=signature, pip_requirements=REQUIREMENTS, **options
    )


def predictions(uri: str) -> list[Any]:
    """What the model there predicts."""
    return list(mlflow.pyfunc.load_model(uri).predict(FEATURES))


def paths_below(folder: str) -> list[str]:
    """The files' paths; what a model's files say of itself differs in every run."""
    return sorted(files_below(folder))


@flow
def log_model_sklearn(record: Recorder) -> None:
    """A scikit-learn model is logged, found and loaded back."""
    own = experiment("flows/sklearn")
    with mlflow.start_run(run_name="sklearn") as run:
        logged = log_threshold(input_example=FEATURES[:1])
        second = (
            log_threshold("second", metadata={"k": "v"}) if VERSION >= (2, 0) else log_threshold("second")
        )
    record.note("model uri", logged.model_uri)
    record.note("run", mlflow.get_run(run.info.run_id))
    client = MlflowClient()
    record.note("files", client.list_artifacts(run.info.run_id, "model"))
    record.note("predicts", predictions(f"runs:/{run.info.run_id}/model"))
    record.note("predicts by uri", predictions(second.model_uri))
    with tempfile.TemporaryDirectory() as folder:
        downloaded = mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=folder)
        record.note("downloaded", paths_below(downloaded))
    record.error("absent", lambda: mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/absent"))
    record.note("found", [found.info.run_name for found in client.search_runs([own])])


@flow
def log_model_pyfunc(record: Recorder) -> None:
    """A model made of Python code is logged and loaded back."""
    experiment("flows/pyfunc")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "doubling.py"
        script.write_text(
            "import mlflow\n\n\nclass Doubling(mlflow.pyfunc.PythonModel):\n"
            "    def predict(self, context, model_input, params=None):\n        return model_input * 2\n\n\n"
            + ("mlflow.models.set_model(Doubling())\n" if VERSION >= (2, 12) else "")
        )

        class Doubling(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
            def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
                return model_input * 2

        place = {"name": "model"} if IS_3 else {"artifact_path": "model"}
        python_model = str(script) if VERSION >= (2, 12) else Doubling()
        with mlflow.start_run(run_name="pyfunc") as run:
            logged = mlflow.pyfunc.log_model(
                python_model=python_model,
                **place,
                signature=infer_signature(FEATURES, FEATURES),
                pip_requirements=[],
            )
    record.note("run", mlflow.get_run(run.info.run_id))
    record.note("predicts", mlflow.pyfunc.load_model(logged.model_uri).predict(pd.DataFrame(FEATURES)))


@flow(since=(2, 0))
def register_model(record: Recorder) -> None:
    """Models are registered while they are logged, and after."""
    experiment("flows/register")
    client, name = MlflowClient(), "registered"
    with mlflow.start_run(run_name="registers") as run:
        logged = log_threshold(registered_model_name=name)
        log_threshold("other")
    record.note("first", client.get_model_version(name, "1"))
    record.note("second", mlflow.register_model(f"runs:/{run.info.run_id}/other", name, tags={"k": "v"}))
    third = mlflow.register_model(logged.model_uri, name)
    record.note("third", third)
    record.note("model", client.get_registered_model(name))
    record.note("uri", client.get_model_version_download_uri(name, "1"))
    if IS_3:
        record.note("logged model", client.get_logged_model(logged.model_id))
    record.note("absent run path", record.current)
    record.error("odd name", lambda: mlflow.register_model(logged.model_uri, "a/b"))
    record.error("absent", lambda: mlflow.register_model("models:/absent/1", name))


@flow(since=(2, 3))
def load_registered(record: Recorder) -> None:
    """A registered model is loaded by version, alias, stage and id."""
    experiment("flows/load")
    client, name = MlflowClient(), "loadable"
    with mlflow.start_run(run_name="loads"):
        logged = log_threshold(registered_model_name=name)
        log_threshold("again", registered_model_name=name)
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "2", "Staging")
    for uri in ("/1", "@champion", "/Staging", "/staging", "/latest"):
        record.error(uri, lambda uri=uri: predictions(f"models:/{name}{uri}"))
    for uri in ("/9", "@absent", "/Production", "/nonsense"):
        record.error(uri, lambda uri=uri: predictions(f"models:/{name}{uri}"))
    record.error("absent model", lambda: predictions("models:/absent/1"))
    record.error("absent latest", lambda: predictions("models:/absent/latest"))
    if IS_3:
        record.note("by id", predictions(f"models:/{logged.model_id}"))
        record.error("absent id", lambda: predictions("models:/m-" + "0" * 32))
    with tempfile.TemporaryDirectory() as folder:
        downloaded = mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=folder)
        record.note("downloaded", paths_below(downloaded))
    record.note("info", mlflow.models.get_model_info(f"models:/{name}/1").flavors["sklearn"]["code"])


@flow(since=(3, 0))
def logged_models(record: Recorder) -> None:
    """Logged models are made, changed, measured, found and deleted."""
    own, client = experiment("flows/logged models"), MlflowClient()
    created = record.note("created", client.create_logged_model(own, name="made", tags={"a": "1"}))
    time.sleep(0.01)
    unnamed = record.note("unnamed", client.create_logged_model(own))
    time.sleep(0.01)
    with mlflow.start_run(run_name="source") as run:
        full = client.create_logged_model(
            own,
            name="full",
            source_run_id=run.info.run_id,
            params={"p": "1", "q": "x" * 300},
            tags={"a": "2"},
            model_type="agent",
        )
        mlflow.log_metric("loss", 0.5, model_id=full.model_id, timestamp=BASE_MS)
        frame = pd.DataFrame({"x": [1.0]})
        data = mlflow.data.from_pandas(frame, source="memory", name="points")
        mlflow.log_metric("accuracy", 0.25, step=1, model_id=full.model_id, timestamp=BASE_MS, dataset=data)
        mlflow.log_metrics({"a": 1.0, "b": 2.0}, step=2, model_id=full.model_id, timestamp=BASE_MS)
        mlflow.log_input(data, context="eval", model=None)
    record.note("run", client.get_run(run.info.run_id))
    record.note("full", client.get_logged_model(full.model_id))
    record.note("ready", client.finalize_logged_model(created.model_id, "READY"))
    time.sleep(0.01)
    record.note("failed", client.finalize_logged_model(unnamed.model_id, "FAILED"))
    client.set_logged_model_tags(created.model_id, {"a": "3", "b": "4"})
    client.delete_logged_model_tag(created.model_id, "a")
    record.error("tag is gone", lambda: client.delete_logged_model_tag(created.model_id, "a"))
    client.log_model_params(full.model_id, {"r": "2"})
    record.note("tagged", client.get_logged_model(created.model_id))
    record.note("params", client.get_logged_model(full.model_id).params)

    client.delete_logged_model(unnamed.model_id)  # its name comes of chance

    def names(filter_string: str | None = None, **options: Any) -> list[str]:
        found = client.search_logged_models([own], filter_string=filter_string, **options)
        return [model.name for model in found]

    for text in (
        None,
        "name = 'made'",
        "name != 'made'",
        "name LIKE 'm%'",
        "tags.b = '4'",
        "params.p = '1'",
        "metrics.loss < 1",
        "metrics.loss > 1",
        "model_type = 'agent'",
        "status = 'READY'",
        "creation_timestamp > 0",
        f"source_run_id = '{run.info.run_id}'",
        f"model_id = '{full.model_id}'",
    ):
        record.error(f"filter {text}", lambda text=text: names(text))
    datasets = [{"dataset_name": "points"}]
    record.error("on a dataset", lambda: names("metrics.accuracy > 0", datasets=datasets))
    record.error("not on it", lambda: names("metrics.loss > 0", datasets=datasets))
    for order in (
        [{"field_name": "name", "ascending": True}],
        [{"field_name": "metrics.loss", "ascending": False}],
        [{"field_name": "creation_timestamp", "ascending": False}],
        [{"field_name": "last_updated_timestamp"}],
    ):
        record.error(f"order {order}", lambda order=order: names(order_by=order))
    page = client.search_logged_models([own], max_results=1, order_by=[{"field_name": "name"}])
    record.note("page", len(page))
    record.note("more", page.token is not None)
    for text in ("nonsense", "colour = 'red'", "metrics.loss = 'a'", "name > 'a'"):
        record.error(f"bad filter {text}", lambda text=text: names(text))
    record.error("bad order", lambda: names(order_by=[{"field_name": "colour"}]))
    record.error("odd name", lambda: client.create_logged_model(own, name="a/b"))
    record.error("missing experiment", lambda: client.create_logged_model("987654321", name="x"))
    missing = "m-" + "0" * 32
    record.error("missing", lambda: client.get_logged_model(missing))
    record.error("finalize missing", lambda: client.finalize_logged_model(missing, "READY"))
    record.error("tag missing", lambda: client.set_logged_model_tags(missing, {"a": "b"}))
    client.delete_logged_model(created.model_id)
    record.error("deleted", lambda: client.get_logged_model(created.model_id))
    record.error("delete twice", lambda: client.delete_logged_model(created.model_id))
    record.note("left", names())


@flow
def autolog_sklearn(record: Recorder) -> None:
    """A training logs itself."""
    if VERSION < (2, 0):
        raise FlowSkippedError("the autologging of 1.x needs scikit-learn before 1.3")
    own = experiment("flows/autolog")
    mlflow.sklearn.autolog(log_models=True, silent=True)
    try:
        with mlflow.start_run(run_name="autologged") as run:
            LogisticRegression().fit(FEATURES, LABELS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    client = MlflowClient()
    record.note("run", client.get_run(run.info.run_id))
    record.note("files", client.list_artifacts(run.info.run_id))
    record.note("predicts", predictions(f"runs:/{run.info.run_id}/model"))
    record.note("found", len(client.search_runs([own])))


@flow(since=(2, 0))
def evaluate_classic(record: Recorder) -> None:
    """Predictions are judged, and what comes of it is logged."""
    own = experiment("flows/evaluate")
    data = pd.DataFrame({"x": FEATURES[:, 0], "label": LABELS, "said": LABELS})
    evaluate = mlflow.models.evaluate if IS_3 else mlflow.evaluate
    with mlflow.start_run(run_name="evaluates") as run:
        if VERSION >= (2, 4):
            data = mlflow.data.from_pandas(
                data, source="memory", name="labelled", targets="label", predictions="said"
            )
            result = evaluate(data=data, model_type="classifier", evaluators=["default"])
        else:
            raise FlowSkippedError("evaluating a column of predictions came with 2.4")
    record.note("metrics", result.metrics)
    record.note("run", mlflow.get_run(run.info.run_id))
    client = MlflowClient()
    record.note("files", client.list_artifacts(run.info.run_id))
    record.note("found", len(client.search_runs([own])))
