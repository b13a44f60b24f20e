"""Uploads and downloads files past the server, as a stock client does when the server offers it.

Run as: python direct_artifacts.py RECORD.json. How large a file has to be is set by MLflow's own variables.
"""

import hashlib
import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient

SIZE = 12 * 1024 * 1024 + 345


def main(record_file: Path) -> None:
    """Upload a large and a small file to a run, a large one to a logged model, and read all of it back."""
    mlflow.set_experiment("direct artifacts")
    client = MlflowClient()
    large, small = Path("large file ü.bin"), Path("small.txt")
    large.write_bytes(os.urandom(SIZE))
    small.write_text("small")
    record: dict[str, Any] = {"sent": digest(large)}
    with mlflow.start_run() as run:
        run_id = run.info.run_id
        drain()
        mlflow.log_artifact(str(large), "data")
        mlflow.log_artifact(str(small), "data")
        listed = {item.path: item.file_size for item in client.list_artifacts(run_id, "data")}
        in_run = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/data", dst_path="run"))
        if hasattr(client, "create_logged_model"):
            model = client.create_logged_model(run.info.experiment_id, name="m", source_run_id=run_id)
            client.log_model_artifact(model.model_id, str(large))
            folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}", dst_path="model"))
            record["of model"] = {path.name: digest(path) for path in folder.iterdir()}
    downloaded = {path.name: digest(path) for path in in_run.iterdir()}
    record |= {"run_id": run_id, "listed": listed, "downloaded": downloaded}
    record_file.write_text(json.dumps(record))


def drain() -> None:
    """Let the run be made in the workspace: only then are files taken there directly."""
    request = urllib.request.Request(
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlproxy/drain",
        data=b'{"timeout_seconds": 240}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["pending"] == 0


def digest(path: Path) -> str:
    """A file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


main(Path(sys.argv[1]))
