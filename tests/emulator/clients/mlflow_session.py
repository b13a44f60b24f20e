"""One working session of azureml-mlflow: everything a training script and a notebook do.

Runs in an environment that holds only Microsoft's client. The tracking URI comes from the environment.
"""

import importlib.util
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from steps import finish, step

WORK = Path(tempfile.mkdtemp())
EXPERIMENT = os.environ["TEST_EXPERIMENT"]
MODEL = os.environ["TEST_MODEL"]


def write_files() -> None:
    """Small, nested, oddly named and empty files."""
    (WORK / "a.txt").write_text("hello")
    (WORK / "dd" / "sub").mkdir(parents=True)
    (WORK / "dd" / "x.txt").write_text("x")
    (WORK / "dd" / "sub" / "y.bin").write_bytes(bytes(range(256)) * 40)
    (WORK / "with space").mkdir()
    (WORK / "with space" / "å 100%#.txt").write_text("odd name")
    (WORK / "empty.bin").write_bytes(b"")
    (WORK / "plain-model").mkdir()
    (WORK / "plain-model" / "MLmodel").write_text("flavors: {}\nmodel_uuid: 0\n")
    (WORK / "plain-model" / "weights.bin").write_bytes(b"\x00\x01" * 500)


def log_values(client: MlflowClient, run_id: str) -> None:
    """Metrics, params, tags."""
    step("log_metric", lambda: mlflow.log_metric("loss", 0.5, step=1))
    step("log_metrics", lambda: mlflow.log_metrics({"acc": 0.9, "f1": 0.8}, step=1))
    step("log_metric_async", lambda: mlflow.log_metric("async_m", 1.0, synchronous=False).wait())
    metrics = [Metric("b", float(index), 1_700_000_000_000, index) for index in range(3)]
    metrics += [
        Metric("nan_m", math.nan, 1_700_000_000_000, 0),
        Metric("inf_m", math.inf, 1_700_000_000_000, 0),
    ]
    step("log_batch", lambda: client.log_batch(run_id, metrics, [Param("p1", "1")], [RunTag("t1", "v")]))
    step("log_param", lambda: mlflow.log_param("lr", "0.1"))
    step("log_param_again", lambda: mlflow.log_param("lr", "0.1"))
    step("log_param_changed", lambda: client.log_param(run_id, "lr", "0.2"))
    step("log_params", lambda: mlflow.log_params({"a": 1, "c": 2}))
    step("set_tag", lambda: mlflow.set_tag("k", "v"))
    step("delete_tag", lambda: mlflow.delete_tag("k"))
    step("too_many_rows", lambda: client.log_batch(run_id, [Metric("big", 0.0, 1, s) for s in range(251)]))


def log_files(run_id: str) -> None:
    """Artifacts up, listed, down."""
    step("log_artifact", lambda: mlflow.log_artifact(str(WORK / "a.txt")))
    step("log_artifact_again", lambda: mlflow.log_artifact(str(WORK / "a.txt")))
    step("log_artifact_dir", lambda: mlflow.log_artifact(str(WORK / "a.txt"), "sub/dir"))
    step("log_artifacts", lambda: mlflow.log_artifacts(str(WORK / "dd"), "dd"))
    step("log_odd_names", lambda: mlflow.log_artifacts(str(WORK / "with space"), "odd"))
    step("log_empty", lambda: mlflow.log_artifact(str(WORK / "empty.bin")))
    step("log_text", lambda: mlflow.log_text("some text", "notes/n.txt"))
    step("log_dict", lambda: mlflow.log_dict({"a": 1}, "cfg.json"))
    store = MlflowClient()
    step("list_root", lambda: sorted(item.path for item in store.list_artifacts(run_id)))
    step("list_dd", lambda: sorted(item.path for item in store.list_artifacts(run_id, "dd")))
    step("download_file", lambda: Path(download(run_id, "a.txt")).read_text())
    step("download_dir", lambda: files_below(Path(download(run_id, "dd"))))
    step("download_odd", lambda: files_below(Path(download(run_id, "odd"))))
    step("download_empty", lambda: Path(download(run_id, "empty.bin")).stat().st_size)
    step("download_missing", lambda: download(run_id, "nope.txt"))


def download(run_id: str, path: str) -> str:
    """Fetch a file or folder of the run."""
    return mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path)


def files_below(folder: Path) -> dict[str, int]:
    """Names and sizes."""
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def use_registry(client: MlflowClient, run_id: str) -> None:
    """Models and versions."""
    step("create_model", lambda: client.create_registered_model(MODEL).name)
    step("create_model_again", lambda: client.create_registered_model(MODEL))
    step("log_model_files", lambda: mlflow.log_artifacts(str(WORK / "plain-model"), "plain"))
    source = f"azureml://artifacts/ExperimentRun/dcid.{run_id}/plain"
    step("version_of_run", lambda: version(client.create_model_version(MODEL, source, run_id)))
    local = f"file://{WORK / 'plain-model'}"
    step("version_of_files", lambda: version(client.create_model_version(MODEL, local)))
    step("version_uri", lambda: client.get_model_version_download_uri(MODEL, "2"))
    for number in ("1", "2"):
        uri = f"models:/{MODEL}/{number}"
        step(
            f"download_version_{number}",
            lambda uri=uri: files_below(Path(mlflow.artifacts.download_artifacts(uri))),
        )
    step("transition", lambda: client.transition_model_version_stage(MODEL, "1", "Staging").current_stage)
    step("model_tag", lambda: client.set_registered_model_tag(MODEL, "team", "a"))
    step("version_tag", lambda: client.set_model_version_tag(MODEL, "1", "ok", "yes"))
    step(
        "search_versions",
        lambda: [version(found) for found in client.search_model_versions(f"name='{MODEL}'")],
    )
    step("search_models", lambda: [found.name for found in client.search_registered_models()])
    step("set_alias", lambda: client.set_registered_model_alias(MODEL, "champ", "1"))
    step("rename_model", lambda: client.rename_registered_model(MODEL, "other"))
    step("delete_model", lambda: client.delete_registered_model(MODEL))
    step("delete_version", lambda: client.delete_model_version(MODEL, "1"))
    step("get_version_2", lambda: version(client.get_model_version(MODEL, "2")))


def version(found: Any) -> list[str]:
    """What a test wants to know of a version."""
    return [found.version, found.source, found.status]


def use_pyfunc(run_id: str) -> None:
    """A real model, where the environment can make one."""

    class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input

    step("log_model", lambda: bool(mlflow.pyfunc.log_model("model", python_model=Echo())))
    step("load_logged_model", lambda: mlflow.pyfunc.load_model(f"runs:/{run_id}/model").predict([1, 2]))
    step("register_model", lambda: mlflow.register_model(f"runs:/{run_id}/model", f"{MODEL}-py").version)
    step("load_registered", lambda: mlflow.pyfunc.load_model(f"models:/{MODEL}-py/1").predict([3]))
    mlflow.pyfunc.save_model(str(WORK / "py"), python_model=Echo())
    client = MlflowClient()
    step(
        "register_local", lambda: version(client.create_model_version(f"{MODEL}-py", f"file://{WORK / 'py'}"))
    )
    step("load_local", lambda: mlflow.pyfunc.load_model(f"models:/{MODEL}-py/2").predict([4]))


def read_back(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    """Runs and experiments, searched and read."""
    step("get_metric_history", lambda: len(client.get_metric_history(run_id, "b")))
    step("search_runs", lambda: [run.info.run_id for run in client.search_runs([experiment_id])])
    step(
        "search_param",
        lambda: len(client.search_runs([experiment_id], "params.lr = '0.1' and metrics.loss < 1")),
    )
    step("search_or", lambda: client.search_runs([experiment_id], "params.a = '1' OR params.a = '2'"))
    step("search_order", lambda: client.search_runs([experiment_id], order_by=["metrics.loss DESC"]))
    step("search_experiments", lambda: EXPERIMENT in [found.name for found in client.search_experiments()])
    run = client.get_run(run_id)
    step("get_run", lambda: [run.data.metrics, run.data.params, run.data.tags, run.info.artifact_uri])


def main() -> None:
    """The whole session."""
    write_files()
    client = MlflowClient()
    experiment = step("set_experiment", lambda: mlflow.set_experiment(EXPERIMENT).experiment_id)
    run_id = step("start_run", lambda: mlflow.start_run(run_name="first").info.run_id)
    log_values(client, run_id)
    log_files(run_id)
    use_registry(client, run_id)
    if importlib.util.find_spec("pandas"):
        use_pyfunc(run_id)
    step("log_input", lambda: log_input(run_id))
    child = step("nested", lambda: mlflow.start_run(nested=True).info.run_id)
    step("end_nested", lambda: mlflow.end_run())
    step("children", lambda: children_of(client, experiment, run_id) == [child])
    step("end_run", lambda: mlflow.end_run())
    read_back(client, run_id, experiment)
    step("delete_run", lambda: client.delete_run(child))
    step("restore_run", lambda: client.restore_run(child))
    step("rename_run", lambda: client.update_run(run_id, name="newname"))
    step("rename_experiment", lambda: client.rename_experiment(experiment, "other"))
    step("version", lambda: mlflow.__version__)
    finish()


def children_of(client: MlflowClient, experiment_id: str, run_id: str) -> list[str]:
    """Runs whose parent tag names this one."""
    found = client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    return [run.info.run_id for run in found]


def log_input(run_id: str) -> None:
    """A dataset."""
    from mlflow.entities import Dataset, DatasetInput

    dataset = Dataset(name="d", digest="1", source_type="local", source="{}")
    MlflowClient().log_inputs(run_id, [DatasetInput(dataset)])


if __name__ == "__main__":
    main()
