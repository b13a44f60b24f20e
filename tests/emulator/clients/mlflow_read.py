"""azureml-mlflow reads a run that someone else made, and adds to it."""

import os
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from steps import finish, step


def main() -> None:
    """Read, then write."""
    client, run_id = MlflowClient(), os.environ["TEST_RUN_ID"]
    run = client.get_run(run_id)
    step("run", lambda: {
        "name": run.info.run_name,
        "status": run.info.status,
        "metrics": run.data.metrics,
        "tags": run.data.tags,
        "experiment_id": run.info.experiment_id,
    })  # fmt: skip
    step("download", lambda: Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=os.environ["TEST_ARTIFACT"])
    ).read_text())  # fmt: skip
    step("log_metric", lambda: client.log_metric(run_id, "from_mlflow", 7.0, step=3))
    step("set_tag", lambda: client.set_tag(run_id, "from_mlflow", "yes"))
    finish()


if __name__ == "__main__":
    main()
