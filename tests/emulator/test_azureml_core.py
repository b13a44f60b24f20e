"""Microsoft's unmodified azureml-core works against the emulator."""

import uuid
from collections.abc import Callable
from typing import Any

from api import Api, point

from tests.support.emulator import EmulatorProcess

Results = dict[str, dict[str, Any]]
Client = Callable[..., Results]


def test_a_whole_session(azureml_core: Client, emulator: EmulatorProcess, api: Api) -> None:
    """Interactive runs, children, metrics, files: written, read back by the SDK, and seen by MLflow."""
    results = azureml_core("core_session.py", TEST_EXPERIMENT=f"core-{uuid.uuid4().hex[:8]}")
    failed = {name: outcome["error"] for name, outcome in results.items() if not outcome["ok"]}
    assert list(failed) == ["upload_file_again"]
    assert "Resource Conflict" in failed["upload_file_again"]
    assert results["get_metrics"]["result"] == {
        "loss": [1.0, 0.5, 1 / 3],
        "curve": [0.1, 0.2, 0.3],
        "row": {"x": 1, "y": 2.5},
        "note": "words",
    }
    assert results["get_file_names"]["result"] == ["folder/g.bin", "out/f.txt"]
    assert results["downloaded"]["result"] == "from core"
    assert results["get_tags"]["result"] == {"who": "core", "a": "1"}
    assert results["get_properties"]["result"] == {"made": "here"}
    assert results["get_details"]["result"] == "Completed"
    assert len(results["children"]["result"]) == 4
    _check_stored(emulator, results)
    _check_mlflow_view(api, results["run_id"]["result"])


def _check_stored(emulator: EmulatorProcess, results: Results) -> None:
    run = emulator.run(results["run_id"]["result"])
    assert (run["created_by"], run["status"], run["name"]) == ("history", "FINISHED", "core run")
    assert [change["history_status"] for change in run["status_changes"]] == [
        "NotStarted",
        "Running",
        "Completed",
    ]
    assert run["seq_of_terminal"] > max(found["seq"] for found in run["metrics"])
    files = {found["path"]: found["size"] for found in run["artifacts"]}
    assert files == {"out/f.txt": 9, "folder/g.bin": 100_000}
    child = emulator.run(results["child_id"]["result"])
    assert (child["parent_run_id"], child["status"]) == (run["run_id"], "FINISHED")
    states = [emulator.run(run_id)["status"] for run_id in results["children"]["result"]]
    assert sorted(states) == ["FAILED", "FINISHED", "KILLED", "KILLED"]


def _check_mlflow_view(api: Api, run_id: str) -> None:
    data = api.get("runs/get", run_id=run_id).json()["run"]["data"]
    latest = {found["key"]: found["value"] for found in data["metrics"]}
    assert latest == {"loss": 1 / 3, "curve": 0.3}


def test_reads_what_mlflow_wrote(azureml_core: Client, api: Api) -> None:
    """A run made through MLflow is an ordinary run to the SDK: metrics, files, tags, status."""
    name = f"core-{uuid.uuid4().hex[:8]}"
    run_id = api.run(api.experiment(name), tags=[{"key": "t", "value": "v"}])
    api.post("runs/log-batch", run_id=run_id, metrics=[point("m", 1.0, step=0), point("m", 2.0, step=1)])
    uri = api.content_uri(run_id, "f.txt")
    api.emulator.settings(blob_host_in_path=True)
    path = uri.partition("/azureml/")[2]
    written = api.http.put(f"/azureml/{path}", content=b"x", headers={"x-ms-blob-type": "BlockBlob"})
    assert written.status_code == 201
    api.post("runs/update", run_id=run_id, status="FINISHED", end_time=5)
    results = azureml_core("core_session.py", TEST_EXPERIMENT=name, TEST_RUN_ID=run_id)
    assert all(outcome["ok"] for outcome in results.values()), results
    assert results["other_metrics"]["result"] == {"m": [1.0, 2.0]}
    assert results["other_files"]["result"] == ["f.txt"]
    assert results["other_tags"]["result"] == {"t": "v"}
    assert results["other_status"]["result"] == "Completed"
