"""Microsoft's unmodified azureml-mlflow works against the emulator."""

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from api import Api

from tests.support.emulator import EmulatorProcess

Results = dict[str, dict[str, Any]]
Client = Callable[..., Results]

REFUSED = {
    "log_param_changed": "Changing param values is not allowed",
    "too_many_rows": "FieldName=MetricV2Dto.Value/Count, Limit=250, Size=251",
    "log_artifact_again": "Resource Conflict: ArtifactId ExperimentRun/dcid.",
    "download_missing": "",
    "create_model_again": "RESOURCE_ALREADY_EXISTS",
    "search_models": "we currently do not support OR",
    "set_alias": "404 != 200. Response body: ''",
    "rename_model": "Renaming a registered model",
    "delete_model": "Deleting a registered model",
    "log_input": "404 != 200. Response body: ''",
    "get_metric_history": "MaxResults = 25000 is invalid: MaxResults must be less than 1000",
    "search_or": "we currently do not support OR",
    "search_order": "only attributes can be ordered by",
    "rename_experiment": "Renaming an experiment",
}
REFUSED_TO_MLFLOW_3 = {
    "list_dd": "logged-models/search failed with error code 404",
    "log_model": "logged-models failed with error code 404",
}
NEEDS_LOG_MODEL = {"load_logged_model", "register_model", "load_registered", "register_local", "load_local"}


@pytest.fixture
def names() -> dict[str, str]:
    """Names of this test's own."""
    mark = uuid.uuid4().hex[:8]
    return {"TEST_EXPERIMENT": f"exp-{mark}", "TEST_MODEL": f"model-{mark}"}


def test_a_whole_session(azureml_mlflow: Client, emulator: EmulatorProcess, names: dict[str, str]) -> None:
    """What the service takes succeeds, what it refuses is refused in its words, and all of it is stored."""
    emulator.settings(artifact_page_size=2)
    results = azureml_mlflow("mlflow_session.py", **names)
    is_mlflow_3 = results["version"]["result"].startswith("3.")
    refused = REFUSED | (REFUSED_TO_MLFLOW_3 if is_mlflow_3 else {})
    for name, outcome in results.items():
        if is_mlflow_3 and name in NEEDS_LOG_MODEL:
            continue
        if name in refused:
            assert not outcome["ok"], name
            assert refused[name] in outcome["error"], (name, outcome["error"])
        else:
            assert outcome["ok"], (name, outcome.get("error"))
    assert results["download_file"]["result"] == "hello"
    assert results["download_dir"]["result"] == {"sub/y.bin": 10240, "x.txt": 1}
    assert results["download_odd"]["result"] == {"å 100%#.txt": 8}
    assert results["download_empty"]["result"] == 0
    assert results["download_version_2"]["result"]["weights.bin"] == 1000
    assert results["search_param"]["result"] == 1
    assert results["children"]["result"] is True
    _check_stored(emulator.run(results["start_run"]["result"]))


def _check_stored(run: dict[str, Any]) -> None:
    assert run["status"] == "FINISHED"
    assert run["name"] == "newname"
    assert run["created_by"] == "mlflow"
    assert run["params"] == {"p1": "1", "lr": "0.1", "a": "1", "c": "2"}
    assert "k" not in run["tags"]
    assert run["tags"]["t1"] == "v"
    points = [(point["key"], point["value"], point["step"]) for point in run["metrics"]]
    assert points == [
        ("loss", 0.5, 1),
        ("acc", 0.9, 1),
        ("f1", 0.8, 1),
        ("async_m", 1.0, 0),
        ("b", 0.0, 0),
        ("b", 1.0, 1),
        ("b", 2.0, 2),
        ("nan_m", "NaN", 0),
        ("inf_m", "Infinity", 0),
    ]
    files = {found["path"]: found["size"] for found in run["artifacts"]}
    assert files["a.txt"] == 5
    assert files["dd/sub/y.bin"] == 10240
    assert files["odd/å 100%#.txt"] == 8
    assert files["empty.bin"] == 0
    assert all(found["content_seq"] for found in run["artifacts"])


def test_service_principal(azureml_mlflow: Client, emulator: EmulatorProcess, names: dict[str, str]) -> None:
    """A client secret is exchanged for a token at the authority the cloud metadata names."""
    results = azureml_mlflow(
        "mlflow_small.py",
        **names,
        AZUREML_CURRENT_CLOUD=None,
        IDENTITY_ENDPOINT=None,
        IDENTITY_HEADER=None,
        ARM_CLOUD_METADATA_URL=f"{emulator.https_url}/metadata/endpoints",
        AZURE_TENANT_ID="adfs",
        AZURE_CLIENT_ID="app",
        AZURE_CLIENT_SECRET="secret",
    )
    assert all(outcome["ok"] for outcome in results.values()), results
    paths = [call["path"] for call in emulator.calls()]
    assert "/adfs/oauth2/token/" in paths


def test_instance_metadata(azureml_mlflow: Client, emulator: EmulatorProcess, names: dict[str, str]) -> None:
    """The IMDS of a virtual machine hands out tokens."""
    results = azureml_mlflow(
        "mlflow_small.py",
        **names,
        IDENTITY_ENDPOINT=None,
        IDENTITY_HEADER=None,
        AZURE_POD_IDENTITY_AUTHORITY_HOST=emulator.http_url,
    )
    assert all(outcome["ok"] for outcome in results.values()), results
    assert "/metadata/identity/oauth2/token" in [call["path"] for call in emulator.calls()]


def test_remote_job_refreshes_its_run_token(
    azureml_mlflow: Client, emulator: EmulatorProcess, api: Api, experiment_id: str, run_id: str
) -> None:
    """A job that starts with a token about to expire asks Run History for the next one and goes on."""
    emulator.clear_calls()
    emulator.settings(token_seconds=60.0)
    dying = emulator.token()
    emulator.settings(token_seconds=3600.0)
    results = azureml_mlflow(
        "mlflow_small.py",
        MLFLOW_TRACKING_TOKEN=dying,
        MLFLOW_RUN_ID=run_id,
        MLFLOW_EXPERIMENT_ID=experiment_id,
        IDENTITY_ENDPOINT=None,
        IDENTITY_HEADER=None,
        TZ="UTC",
    )
    assert all(outcome["ok"] for outcome in results.values()), results
    asked = [call for call in emulator.calls() if call["path"].endswith(f"/runs/{run_id}/token")]
    assert [call["status"] for call in asked] == [200]
    run = emulator.run(run_id)
    assert [point["key"] for point in run["metrics"]] == ["m"]
    assert [found["path"] for found in run["artifacts"]] == ["t.txt"]


def test_reads_what_run_history_wrote(
    azureml_mlflow: Client, emulator: EmulatorProcess, api: Api, experiment_id: str
) -> None:
    """A run made by PATCH is an ordinary run to MLflow: name, tags, metrics, files, and further writes."""
    run_id = str(uuid.uuid4())
    address = f"/experimentids/{experiment_id}/runs/{run_id}"
    api.history("PATCH", address, {"runId": run_id, "displayName": "mine", "tags": {"a": "b"}})
    api.history("POST", f"{address}/events", {"name": "Microsoft.MachineLearning.Run.Start", "data": {}})
    value = {"metricId": "1", "createdUtc": "2026-01-01T00:00:00Z", "step": 4, "data": {"loss": 0.25}}
    metric = {"name": "loss", "columns": {"loss": "Double"}, "value": [value]}
    api.metric(f"/runs/{run_id}/batch", {"values": [metric]})
    uri = api.content_uri(run_id, "out/f.txt")
    api.http.put(uri, content=b"bytes", headers={"x-ms-blob-type": "BlockBlob"}).raise_for_status()
    results = azureml_mlflow("mlflow_read.py", TEST_RUN_ID=run_id, TEST_ARTIFACT="out/f.txt")
    assert all(outcome["ok"] for outcome in results.values()), results
    seen = results["run"]["result"]
    assert (seen["name"], seen["status"], seen["metrics"]) == ("mine", "RUNNING", {"loss": 0.25})
    assert seen["tags"]["a"] == "b"
    assert results["download"]["result"] == "bytes"
    stored = emulator.run(run_id)
    assert [point["key"] for point in stored["metrics"]] == ["loss", "from_mlflow"]
    assert stored["created_by"] == "history"


def test_tokens_are_decodable(emulator: EmulatorProcess) -> None:
    """A token is a JWT with the expiry that the client reads from it."""
    claims = emulator.token().split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert decoded["exp"] > decoded["iat"]
    assert decoded["aud"] == "https://management.azure.com"
