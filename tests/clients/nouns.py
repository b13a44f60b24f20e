"""What stock clients do with each noun, and what they handed over.

Usage: nouns.py RECORD.json. The only settings are MLflow's own variables. The record holds, by noun,
the ids that the server gave out and what the workspace is to hold in the end; names begin with the
client's major version, so that several clients can share a server.
"""

import hashlib
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import mlflow
import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

mpl.use("Agg")

MAJOR = mlflow.__version__.split(".")[0]
IS_MLFLOW_3 = int(MAJOR) >= 3
BASE_MS = 1_700_000_000_000
Record = dict[str, Any]


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A model that says what it is told."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input


def main(record_file: Path) -> None:
    """Do everything and write the record."""
    client = MlflowClient()
    record = {"mlflow": mlflow.__version__, "experiments": experiments(client)}
    mlflow.set_experiment(f"{MAJOR} nouns")
    nouns = (runs, params, metrics, tags, artifacts, registered_models, model_versions)
    record |= {noun.__name__: noun(client) for noun in nouns}
    if IS_MLFLOW_3:
        record |= {"logged_models": logged_models(client)}
    record |= {"kept": kept(client)}
    record_file.write_text(json.dumps(record))


def experiments(client: MlflowClient) -> Record:
    """Created, tagged, renamed, deleted, restored; and a new one under the old name."""
    name = f"{MAJOR} kept name"
    renamed = client.create_experiment(name, tags={"team": "vision", "stage": "first"})
    client.set_experiment_tag(renamed, "stage", "last")
    client.rename_experiment(renamed, f"{MAJOR} new name")
    namesake = client.create_experiment(name)
    restored = client.create_experiment(f"{MAJOR} restored")
    run = client.create_run(restored).info.run_id
    client.set_terminated(run)
    client.delete_experiment(restored)
    client.restore_experiment(restored)
    deleted = client.create_experiment(f"{MAJOR} deleted")
    client.delete_experiment(deleted)
    folder = client.create_experiment(f"/Users/{MAJOR}/folder")
    return {
        "renamed": renamed,
        "namesake": namesake,
        "restored": restored,
        "run of restored": run,
        "deleted": deleted,
        "folder": folder,
    }


def runs(client: MlflowClient) -> Record:
    """Of every status, nested, deleted, restored, renamed, resumed after their end."""
    ended = {}
    for status in ("FINISHED", "FAILED", "KILLED"):
        run = mlflow.start_run(run_name=f"ends {status}", description="said at the start")
        mlflow.end_run(status)
        ended[status] = run.info.run_id
    own = mlflow.get_run(ended["FINISHED"]).info.experiment_id
    running = client.create_run(own, run_name="goes on").info.run_id
    with (
        mlflow.start_run(run_name="outer") as outer,
        mlflow.start_run(nested=True, run_name="middle") as middle,
        mlflow.start_run(nested=True, run_name="inner") as inner,
    ):
        mlflow.log_metric("depth", 3)
    deleted, restored = (client.create_run(own, run_name=name).info.run_id for name in ("gone", "back"))
    for run_id in (deleted, restored):
        client.log_param(run_id, "kept", "yes")
        client.set_terminated(run_id)
        client.delete_run(run_id)
    client.restore_run(restored)
    with mlflow.start_run(run_name="resumed") as resumed:
        mlflow.log_metric("loss", 1.0, step=0, timestamp=BASE_MS)
    with mlflow.start_run(run_id=resumed.info.run_id):
        mlflow.log_metric("loss", 0.5, step=1, timestamp=BASE_MS + 1)
    client.update_run(resumed.info.run_id, name="resumed and renamed")
    return {
        "ended": ended,
        "running": running,
        "outer": outer.info.run_id,
        "middle": middle.info.run_id,
        "inner": inner.info.run_id,
        "deleted": deleted,
        "restored": restored,
        "resumed": resumed.info.run_id,
        "resumed end": mlflow.get_run(resumed.info.run_id).info.end_time,
    }


def params(client: MlflowClient) -> Record:
    """One by one, in a batch, twice the same, with odd names and long values."""
    values = {"lr": "0.1", "layers/one two": "64", "ünïcode": "“quoted”", "space": " ", "long": "x" * 500}
    with mlflow.start_run(run_name="params") as run:
        mlflow.log_param("lr", 0.1)
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({key: value for key, value in values.items() if key != "lr"})
    return {"run_id": run.info.run_id, "expected": values}


def metrics(client: MlflowClient) -> Record:
    """Odd numbers, one step twice, one point twice, and the metrics of models."""
    logged: list[tuple[str, int, int, float]] = [
        ("odd", 0, BASE_MS, math.nan),
        ("odd", 1, BASE_MS, math.inf),
        ("odd", 2, BASE_MS, -math.inf),
        ("odd", -3, BASE_MS, 5e-324),
        ("same step", 7, BASE_MS, 1.0),
        ("same step", 7, BASE_MS, 2.0),
        ("same step", 7, BASE_MS + 1, 1.0),
        ("once", 0, BASE_MS, 4.0),
    ]
    with mlflow.start_run(run_name="metrics") as run:
        for key, step, timestamp, value in logged:
            mlflow.log_metric(key, value, step=step, timestamp=timestamp)
        mlflow.log_metric("once", 4.0, step=0, timestamp=BASE_MS)
    with mlflow.start_run(run_name="model metrics") as model_run:
        mlflow.log_metric("accuracy", 0.5, step=0, timestamp=BASE_MS)
        mlflow.log_metric("accuracy", 0.75, step=1, timestamp=BASE_MS + 1)
        # MLflow 3 sends the run's metrics of this step once more, as the model's.
        model = log_echo("measured")
        expected = [("accuracy", 0, BASE_MS, 0.5), ("accuracy", 1, BASE_MS + 1, 0.75)]
        if IS_MLFLOW_3:
            frame = mlflow.data.from_pandas(pd.DataFrame({"x": [1.0]}), source="memory", name="points")
            mlflow.log_metric("f1", 0.25, step=0, timestamp=BASE_MS, model_id=model.model_id)
            mlflow.log_metric("f1", 0.25, step=0, timestamp=BASE_MS, model_id=model.model_id, dataset=frame)
            expected.append(("f1", 0, BASE_MS, 0.25))
    return {
        "run_id": run.info.run_id,
        "expected": texts(logged),
        "model run": model_run.info.run_id,
        "expected of model run": texts(expected),
    }


def texts(points: list[tuple[str, int, int, float]]) -> list[list[Any]]:
    """Points with their values as text, which JSON can carry."""
    return [[key, step, timestamp, repr(value)] for key, step, timestamp, value in points]


def tags(client: MlflowClient) -> Record:
    """Set, overwritten, deleted, deleted and set again."""
    with mlflow.start_run(run_name="tags", tags={"at start": "yes"}) as run:
        mlflow.set_tags({"stage": "first", "gone": "x", "again": "first", "ünïcode": "“quoted”\n"})
        mlflow.set_tag("stage", "last")
        mlflow.delete_tag("gone")
        mlflow.delete_tag("again")
        mlflow.set_tag("again", "second")
        mlflow.set_tag("mlflow.note.content", "# A note")
    expected = {
        "at start": "yes",
        "stage": "last",
        "again": "second",
        "ünïcode": "“quoted”\n",
        "mlflow.note.content": "# A note",
        "mlflow.runName": "tags",
    }
    return {"run_id": run.info.run_id, "expected": expected, "deleted": ["gone"]}


def artifacts(client: MlflowClient) -> Record:
    """Uploaded, overwritten, emptied, deleted one by one and as a folder, uploaded again."""
    with mlflow.start_run(run_name="artifacts") as run, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "a b ü.txt").write_bytes(b"deep")
        (folder / "empty.bin").write_bytes(b"")
        mlflow.log_artifacts(place, "report")
        mlflow.log_artifact(str(folder / "empty.bin"))
        for content in ("first", "second, longer", "last"):
            mlflow.log_text(content, "notes.txt")
        mlflow.log_text("x", "gone.txt")
        mlflow.log_text("x", "folder/one.txt")
        mlflow.log_text("x", "folder/two/three.txt")
        mlflow.log_text("x", "again.txt")
        repository = get_artifact_repository(run.info.artifact_uri)
        repository.delete_artifacts("gone.txt")
        repository.delete_artifacts("folder")
        repository.delete_artifacts("again.txt")
        mlflow.log_text("again", "again.txt")
    contents = {
        "report/deep/er/a b ü.txt": b"deep",
        "report/empty.bin": b"",
        "empty.bin": b"",
        "notes.txt": b"last",
        "again.txt": b"again",
    }
    expected = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return {"run_id": run.info.run_id, "expected": expected}


def registered_models(client: MlflowClient) -> Record:
    """With a description and tags, both changed."""
    name, odd = f"{MAJOR}-described", f"{MAJOR} odd/name".replace("/", " ")
    client.create_registered_model(name, tags={"team": "vision", "gone": "x"}, description="first")
    client.update_registered_model(name, description="last")
    client.set_registered_model_tag(name, "team", "audio")
    client.set_registered_model_tag(name, "new", "1")
    client.delete_registered_model_tag(name, "gone")
    client.create_registered_model(odd)
    return {"name": name, "odd": odd, "description": "last", "tags": {"team": "audio", "new": "1"}}


def model_versions(client: MlflowClient) -> Record:
    """From a run's folder, from a logged model, as copies; with stages, descriptions and tags; deleted."""
    name, copies = f"{MAJOR}-versions", f"{MAJOR}-copies"
    with mlflow.start_run(run_name="versions") as run:
        first = log_echo("model", registered_model_name=name)
        log_echo("other")
    run_id = run.info.run_id
    mlflow.register_model(f"runs:/{run_id}/other", name, tags={"k": "v", "gone": "x"})
    mlflow.register_model(first.model_uri, name)
    mlflow.register_model(f"runs:/{run_id}/other", name)
    client.delete_model_version(name, "4")
    mlflow.register_model(f"runs:/{run_id}/other", name)
    client.update_model_version(name, "1", description="the first")
    client.set_model_version_tag(name, "2", "k", "w")
    client.delete_model_version_tag(name, "2", "gone")
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Staging")
    client.transition_model_version_stage(name, "3", "Production", archive_existing_versions=True)
    client.copy_model_version(f"models:/{name}/2", copies)
    return {
        "name": name,
        "copies": copies,
        "run_id": run_id,
        "stages": {"1": "Archived", "2": "Staging", "3": "Production", "5": "None"},
        "folders": {"1": "model", "2": "other", "3": "model", "5": "other"},
    }


def logged_models(client: MlflowClient) -> Record:
    """Two of one name in one run, and one that no run made."""
    with mlflow.start_run(run_name="logged models") as run:
        models = [log_echo("twin"), log_echo("twin")]
    mlflow.register_model(models[1].model_uri, f"{MAJOR}-twin")
    files = {}
    for model in models:
        folder = Path(mlflow.artifacts.download_artifacts(model.model_uri))
        files[model.model_id] = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "registered_model_meta"
        }
    alone = mlflow.create_external_model(name="outside", params={"a": "1"}, tags={"b": "2"})
    client.set_logged_model_tags(models[0].model_id, {"kept": "here"})
    return {
        "run_id": run.info.run_id,
        "models": [model.model_id for model in models],
        "files": files,
        "alone": alone.model_id,
    }


def kept(client: MlflowClient) -> Record:
    """What the workspace has no place for: aliases, datasets, prompts, renames and deletes of models."""
    name, gone = f"{MAJOR}-renamed", f"{MAJOR}-deleted"
    with mlflow.start_run(run_name="kept") as run:
        log_echo("model", registered_model_name=name)
        frame = pd.DataFrame({"x": [1.0], "y": [0]})
        mlflow.log_input(mlflow.data.from_pandas(frame, source="memory", name="points"), context="training")
    client.set_registered_model_alias(name, "champion", "1")
    client.delete_registered_model_alias(name, "champion")
    client.set_registered_model_alias(name, "champion", "1")
    client.rename_registered_model(name, f"{name}-later")
    client.set_model_version_tag(f"{name}-later", "1", "after", "renaming")
    client.create_registered_model(gone)
    client.delete_registered_model(gone)
    prompt = f"{MAJOR}-prompt"
    register = mlflow.genai.register_prompt if IS_MLFLOW_3 else mlflow.register_prompt
    for text in ("Say {{this}}.", "Say {{that}}."):
        register(name=prompt, template=text)
    return {
        "run_id": run.info.run_id,
        "renamed": name,
        "deleted": gone,
        "prompt": prompt,
        "datasets": [found.dataset.name for found in client.get_run(run.info.run_id).inputs.dataset_inputs],
    }


def log_echo(name: str, **options: Any) -> Any:
    """Log the model to the active run."""
    place = {"name": name} if IS_MLFLOW_3 else {"artifact_path": name}
    return mlflow.pyfunc.log_model(python_model=Echo(), **place, pip_requirements=[], **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
