"""Flows about files."""

import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow import MlflowClient
from recording import VERSION, Recorder, digest, files_below, flow
from tracking import MISSING_RUN, experiment

LARGE_BYTES = 12 * 1024 * 1024


@flow
def log_artifact(record: Recorder) -> None:
    """Files with unusual names are uploaded, listed and downloaded."""
    experiment("flows/artifact")
    with mlflow.start_run(run_name="artifact") as run, tempfile.TemporaryDirectory() as folder:
        for name in ("plain.txt", "with space & ünïcode.txt", "100%+.bin", "page.html", "no_ending"):
            path = Path(folder) / name
            path.write_text(name)
            mlflow.log_artifact(str(path))
            mlflow.log_artifact(str(path), "deep/er")
        (Path(folder) / "plain.txt").write_text("second")
        mlflow.log_artifact(str(Path(folder) / "plain.txt"))
    client, run_id = MlflowClient(), run.info.run_id
    for path in (None, "deep", "deep/er", "plain.txt", "absent", "deep/er/plain.txt"):
        record.error(f"list {path}", lambda path=path: client.list_artifacts(run_id, path))
    with tempfile.TemporaryDirectory() as folder:
        record.note("root", files_below(client.download_artifacts(run_id, "", folder)))
    for path in ("plain.txt", "100%+.bin", "deep/er/with space & ünïcode.txt", "page.html"):
        with tempfile.TemporaryDirectory() as folder:
            record.note(f"download {path}", files_below(client.download_artifacts(run_id, path, folder)))
    with tempfile.TemporaryDirectory() as folder:
        record.error("absent file", lambda: client.download_artifacts(run_id, "absent.txt", folder))
        record.error("outside", lambda: client.download_artifacts(run_id, "../x", folder))
    if VERSION >= (2, 10):
        record.note("by uri", mlflow.artifacts.list_artifacts(f"runs:/{run_id}/deep"))
    record.error("missing run", lambda: client.list_artifacts(MISSING_RUN))


@flow
def log_artifacts(record: Recorder) -> None:
    """A folder is uploaded, listed and downloaded."""
    experiment("flows/artifacts")
    with mlflow.start_run(run_name="artifacts") as run, tempfile.TemporaryDirectory() as folder:
        contents = {"a.txt": b"a", "b/c.txt": b"c", "b/d/e.bin": bytes(range(256)) * 400, "b/empty": b""}
        for name, content in contents.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        mlflow.log_artifacts(folder)
        mlflow.log_artifacts(folder, "report")
    client, run_id = MlflowClient(), run.info.run_id
    for path in (None, "b", "report", "report/b/d"):
        record.note(f"list {path}", client.list_artifacts(run_id, path))
    with tempfile.TemporaryDirectory() as folder:
        record.note("download", files_below(client.download_artifacts(run_id, "report", folder)))
    if VERSION >= (2, 0):
        record.note("by uri", mlflow.artifacts.load_text(f"runs:/{run_id}/report/a.txt"))


@flow
def log_text_dict_figure(record: Recorder) -> None:
    """Texts, dictionaries and figures are stored as files and loaded back."""
    experiment("flows/fluent files")
    with mlflow.start_run(run_name="fluent") as run:
        mlflow.log_text("ünïcode text", "notes/text.txt")
        mlflow.log_text("<h1>page</h1>", "notes/page.html")
        mlflow.log_dict({"a": [1, 2], "ü": None}, "settings.json")
        mlflow.log_dict({"a": {"b": 1}}, "settings.yaml")
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2, 3])
        mlflow.log_figure(figure, "plots/curve.png")
    run_id = run.info.run_id
    record.note("list", MlflowClient().list_artifacts(run_id))
    if VERSION >= (2, 0):
        record.note("text", mlflow.artifacts.load_text(f"runs:/{run_id}/notes/text.txt"))
        record.note("dict", mlflow.artifacts.load_dict(f"runs:/{run_id}/settings.json"))
        record.note("image", mlflow.artifacts.load_image(f"runs:/{run_id}/plots/curve.png").size)


@flow
def log_image(record: Recorder) -> None:
    """An image is stored as a file."""
    experiment("flows/image")
    with mlflow.start_run(run_name="image") as run:
        mlflow.log_image(np.zeros((4, 4, 3), dtype=np.uint8), "pictures/black.png")
    record.note("list", MlflowClient().list_artifacts(run.info.run_id, "pictures"))


@flow(since=(2, 12))
def log_image_steps(record: Recorder) -> None:
    """Images are logged by step, as metrics are."""
    experiment("flows/image steps")
    with mlflow.start_run(run_name="images") as run:
        for step in range(2):
            picture = np.full((4, 4, 3), 100 * step, dtype=np.uint8)
            mlflow.log_image(picture, key="sample", step=step, timestamp=1_700_000_000_000, synchronous=True)
    listed = MlflowClient().list_artifacts(run.info.run_id, "images")
    record.note("kinds", sorted((Path(entry.path).suffix, entry.file_size) for entry in listed))
    record.note("run", mlflow.get_run(run.info.run_id))


@flow
def empty_and_large_files(record: Recorder) -> None:
    """A file of no bytes and one of many come back as they were."""
    experiment("flows/sizes")
    with mlflow.start_run(run_name="sizes") as run, tempfile.TemporaryDirectory() as folder:
        large = np.random.default_rng(7).bytes(LARGE_BYTES)
        (Path(folder) / "large.bin").write_bytes(large)
        (Path(folder) / "empty.txt").write_bytes(b"")
        mlflow.log_artifact(str(Path(folder) / "large.bin"))
        mlflow.log_artifact(str(Path(folder) / "empty.txt"))
    client = MlflowClient()
    record.note("list", client.list_artifacts(run.info.run_id))
    record.note("sent", digest(large))
    with tempfile.TemporaryDirectory() as folder:
        record.note("download", files_below(client.download_artifacts(run.info.run_id, "", folder)))


@flow(since=(2, 2))
def log_table(record: Recorder) -> None:
    """Tables are appended to and loaded back."""
    own = experiment("flows/table")
    with mlflow.start_run(run_name="table") as run:
        mlflow.log_table(pd.DataFrame({"in": ["q1", "q2"], "out": ["a1", "a2"]}), "tables/answers.json")
        mlflow.log_table({"in": ["q3"], "out": ["a3"]}, "tables/answers.json")
        mlflow.log_table({"other": [1]}, "second.json")
    run_id = run.info.run_id
    record.note("run", mlflow.get_run(run_id))
    record.note("table", mlflow.load_table("tables/answers.json", run_ids=[run_id], extra_columns=["run_id"]))
    record.note("all runs", len(mlflow.load_table("tables/answers.json")) > 0)
    record.error("absent", lambda: mlflow.load_table("absent.json", run_ids=[run_id]))
    record.note("experiment", len(MlflowClient().search_runs([own])))
