"""What a job of MLflow 1.30 does, through that client. Argument: the server's URL."""

import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient


def track(client):
    """Experiments, runs and everything that is logged to them."""
    experiment_id = client.create_experiment("old", tags={"from": "1.x"})
    assert client.get_experiment_by_name("old").experiment_id == experiment_id
    client.set_experiment_tag(experiment_id, "more", "yes")
    client.rename_experiment(experiment_id, "older")
    names = [item.name for item in client.list_experiments()]
    assert sorted(names) == ["Default", "older"], names
    assert len(client.list_experiments(max_results=1)) == 1
    assert [item.name for item in client.search_experiments(filter_string="name = 'older'")] == ["older"]

    mlflow.set_experiment("older")
    with mlflow.start_run() as run:
        mlflow.log_param("rate", 0.1)
        mlflow.log_params({"a": 1, "b": "x"})
        for step in range(5):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.set_tags({"kind": "old", "gone": "1"})
        mlflow.delete_tag("gone")
        mlflow.log_dict({"k": "v"}, "config.json")
        mlflow.log_text("hello", "texts/hello.txt")
        with mlflow.start_run(nested=True):
            mlflow.log_metric("loss", 0.5)
    run_id = run.info.run_id
    client.log_batch(run_id, [Metric("acc", 0.9, 1, 0)], [Param("c", "3")], [RunTag("t", "u")])
    data = client.get_run(run_id).data
    assert data.metrics == {"loss": 0.2, "acc": 0.9}, data.metrics
    assert data.params == {"rate": "0.1", "a": "1", "b": "x", "c": "3"}, data.params
    assert data.tags["kind"] == "old"
    assert len(client.get_metric_history(run_id, "loss")) == 5
    assert sorted(item.path for item in client.list_artifacts(run_id)) == ["config.json", "texts"]
    with tempfile.TemporaryDirectory() as folder:
        assert Path(client.download_artifacts(run_id, "texts/hello.txt", folder)).read_text() == "hello"
    found = client.search_runs([experiment_id], "params.b = 'x' and metrics.loss < 1")
    assert [item.info.run_id for item in found] == [run_id]
    assert len(client.list_run_infos(experiment_id)) == 2
    client.delete_run(run_id)
    assert len(client.list_run_infos(experiment_id, run_view_type=ViewType.DELETED_ONLY)) == 1
    client.restore_run(run_id)
    client.delete_experiment(client.create_experiment("short"))
    return run_id


def register(client, run_id):
    """The registry of 1.x, with stages."""
    client.create_registered_model("old-model", tags={"a": "b"}, description="one")
    version = client.create_model_version("old-model", f"runs:/{run_id}/texts", run_id, tags={"c": "d"})
    assert str(version.version) == "1", version
    client.update_model_version("old-model", "1", description="first")
    client.transition_model_version_stage("old-model", "1", "Production")
    assert [str(item.version) for item in client.get_latest_versions("old-model", ["Production"])] == ["1"]
    client.set_registered_model_tag("old-model", "x", "y")
    client.set_model_version_tag("old-model", "1", "x", "y")
    client.delete_model_version_tag("old-model", "1", "x")
    assert [item.name for item in client.list_registered_models()] == ["old-model"]
    assert [item.name for item in client.search_registered_models("name = 'old-model'")] == ["old-model"]
    assert len(client.search_model_versions("name='old-model'")) == 1
    assert client.get_model_version_download_uri("old-model", "1")
    client.rename_registered_model("old-model", "older-model")
    client.delete_model_version("older-model", "1")
    client.delete_registered_model("older-model")
    assert refusal(client, "older-model") == "RESOURCE_DOES_NOT_EXIST"


def refusal(client, name):
    """The code of the error that reading a model ends in."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        return error.error_code
    return None


def main():
    """Run everything against the server named on the command line."""
    mlflow.set_tracking_uri(sys.argv[1])
    client = MlflowClient()
    register(client, track(client))
    print("done")


main()
