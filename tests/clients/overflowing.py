"""Logs what autologging of a wide model logs, more than Azure ML takes of anything, and reads it back."""

import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient

mlflow.set_experiment("stock, too much")
with mlflow.start_run(run_name="wide model") as run:
    mlflow.log_params({f"param_{number}": number for number in range(250)})
    for epoch in range(20):
        mlflow.log_metrics({"loss": 1 / (epoch + 1), "accuracy": epoch / 20}, step=epoch)
        mlflow.log_metrics({f"feature_{number}": epoch * number for number in range(70)}, step=epoch)
    mlflow.set_tags({f"tag_{number}": "value" for number in range(60)})
    mlflow.set_tag("mlflow.note.content", "A description that goes on. " * 100)
    mlflow.log_dict({"well": True}, "summary.json")

client = MlflowClient()
data = client.get_run(run.info.run_id).data
assert len(data.params) == 250, len(data.params)
assert len(data.metrics) == 72, len(data.metrics)
assert {f"tag_{number}" for number in range(60)} <= data.tags.keys()
assert len(data.tags["mlflow.note.content"]) == 2800
history = client.get_metric_history(run.info.run_id, "feature_69")
assert [point.step for point in history] == list(range(20))
found = mlflow.search_runs(filter_string="metrics.feature_69 > 1300 and params.param_249 = '249'")
assert list(found["run_id"]) == [run.info.run_id]
Path(sys.argv[1]).write_text(run.info.run_id)
