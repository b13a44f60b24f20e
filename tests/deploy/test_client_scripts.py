"""The scripts that point Databricks clusters and Azure ML jobs at the proxy, run as they are run there.

A stock client then logs with the variables that they leave; neither service is at hand here.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.emulator import REPOSITORY
from tests.support.interpreters import client_python
from tests.support.server import ServerProcess

DEPLOY = REPOSITORY / "deploy"
SCRIPT_TIMEOUT_SECONDS = 480
# What a training script does that names neither server nor experiment.
TRAINING = """
import mlflow
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.5)
    mlflow.log_text("hello", "notes.txt")
print(mlflow.get_tracking_uri(), mlflow.get_registry_uri(), run.info.run_id)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A proxy that asks for keys."""
    folder = tmp_path_factory.mktemp("proxy")
    with ServerProcess.start(folder, MLPROXY_AUTH="keys") as server:
        created = server.cli("keys", "create", "clients")
        server.api_key = created.stdout.splitlines()[-1]
        yield server


def shell(script: str, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run it in bash, with these variables and no others."""
    return subprocess.run(
        ["bash", "-eu", "-c", script],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_SECONDS,
        check=False,
    )


def train(before: str, folder: Path, **environment: str) -> list[str]:
    """Do `before`, then the training; its tracking URI, its registry URI and its run's id."""
    script = f"{before}\nexec {client_python('mlflow3')} -c '{TRAINING}'"
    done = shell(script, folder, GIT_PYTHON_REFRESH="quiet", **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1].split()


def experiment_of(server: ServerProcess, run_id: str) -> str:
    """The name of the experiment that a run is in."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=f"{server.url}/api/2.0/mlflow", headers=headers, trust_env=False) as http:
        info = http.get("/runs/get", params={"run_id": run_id}).json()["run"]["info"]
        assert info["status"] == "FINISHED"
        found = http.get("/experiments/get", params={"experiment_id": info["experiment_id"]}).json()
    return str(found["experiment"]["name"])


def test_a_databricks_cluster_logs_to_the_proxy(server: ServerProcess, tmp_path: Path) -> None:
    """After the init script the cluster's default (`databricks`) does not win, for runs nor for models."""
    spark_env = tmp_path / "spark-env.sh"
    spark_env.write_text("export MLFLOW_TRACKING_URI=databricks\nexport MLFLOW_EXPERIMENT_ID=12345\n")
    cluster = {
        "MLPROXY_URL": server.url,
        "MLPROXY_KEY": str(server.api_key),
        "DATABRICKS_RUNTIME_VERSION": "15.4",
    }
    init = DEPLOY / "databricks" / "mlproxy-init.sh"
    done = shell(f"exec {init}", tmp_path, SPARK_ENV_FILE=str(spark_env), **cluster)
    assert done.returncode == 0, done.stderr
    assert str(server.api_key) not in spark_env.read_text()
    tracking, registry, run_id = train(f". {spark_env}", tmp_path, **cluster)
    assert (tracking, registry) == (server.url, server.url)
    assert experiment_of(server, run_id) == "databricks"


def test_an_azure_ml_job_logs_to_the_proxy(server: ServerProcess, tmp_path: Path) -> None:
    """The variables that Azure ML sets for a job's own run do not win."""
    job = {
        "MLFLOW_TRACKING_URI": "azureml://westeurope.api.azureml.ms/mlflow/v1.0/subscriptions/s",
        "MLFLOW_TRACKING_TOKEN": "e30.e30.",
        "MLFLOW_RUN_ID": "bold_star_x",
        "MLFLOW_EXPERIMENT_ID": "e6f0e63a-8430-4a04-bc15-25e98d991ca1",
        "MLFLOW_EXPERIMENT_NAME": "the-jobs-own",
        "AZUREML_RUN_ID": "bold_star_x",
        "MLPROXY_URL": server.url,
        "MLPROXY_KEY": str(server.api_key),
    }
    script = f". {DEPLOY / 'azureml' / 'mlproxy-env.sh'}"
    tracking, registry, run_id = train(script, tmp_path, **job)
    assert (tracking, registry) == (server.url, server.url)
    assert experiment_of(server, run_id) == "the-jobs-own"
    *_, run_id = train(script, tmp_path, **job, MLPROXY_EXPERIMENT="other")
    assert experiment_of(server, run_id) == "other"


@pytest.mark.parametrize("name", ["databricks/mlproxy-init.sh", "azureml/mlproxy-env.sh"])
def test_a_missing_address_is_said(name: str, tmp_path: Path) -> None:
    """Without MLPROXY_URL a script ends with words, and MLflow is not pointed anywhere."""
    done = shell(f". {DEPLOY / name}", tmp_path, SPARK_ENV_FILE=str(tmp_path / "spark-env.sh"))
    assert done.returncode != 0
    assert "MLPROXY_URL" in done.stderr
    assert list(tmp_path.iterdir()) == []
