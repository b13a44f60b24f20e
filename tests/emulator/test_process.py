"""The emulator as a program: it starts, stops, keeps its state, and shows it."""

import time
from pathlib import Path

import httpx
import pytest
from api import Api, point

from tests.support.emulator import STOP_TIMEOUT_SECONDS, EmulatorProcess


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_restart_keeps_everything(tmp_path: Path, ending: str) -> None:
    """Runs, bytes, settings, tokens and addresses handed out survive, also a kill."""
    with EmulatorProcess.start(tmp_path) as emulator:
        api = Api(emulator)
        run_id = api.run(api.experiment("kept"))
        api.post("runs/log-batch", run_id=run_id, metrics=[point("m")], params=[{"key": "p", "value": "1"}])
        uri = api.content_uri(run_id, "a.txt")
        api.http.put(uri, content=b"bytes", headers={"x-ms-blob-type": "BlockBlob"})
        emulator.settings(search_lag_seconds=0.25)
        before, address = emulator.run(run_id), api.read_uri(run_id, "a.txt")
        getattr(emulator, ending)()
        emulator.restart()
        assert emulator.run(run_id) == before
        assert emulator.settings()["search_lag_seconds"] == 0.25
        assert httpx.get(address).content == b"bytes"
        assert api.get("runs/get", run_id=run_id).status_code == 200
        api.post("runs/log-metric", run_id=run_id, **point("later")).raise_for_status()
        assert emulator.run(run_id)["metrics"][-1]["seq"] > before["metrics"][-1]["seq"]


def test_it_stops_at_once(tmp_path: Path) -> None:
    """Soon after SIGTERM and by itself, an open connection and a hanging call notwithstanding."""
    emulator = EmulatorProcess.start(tmp_path, tls=True)
    emulator.add_fault(match="GET /discovery", effect="delay", delay_seconds=300)
    with httpx.Client() as client:
        client.get(f"{emulator.http_url}/emulator")
        with pytest.raises(httpx.TransportError):
            client.get(f"{emulator.http_url}/discovery", timeout=0.2)
        started = time.monotonic()
        emulator.stop()
    assert time.monotonic() - started < STOP_TIMEOUT_SECONDS


def test_workspace_names(tmp_path: Path) -> None:
    """`--workspace` names the workspaces that exist."""
    with EmulatorProcess.start(tmp_path, workspaces=("one", "two")) as emulator:
        api = Api(emulator)
        path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/"
        found = [api.http.get(path + name).status_code for name in ("one", "two", "emulator")]
    assert found == [200, 200, 404]


def test_it_says_what_to_paste(tmp_path: Path) -> None:
    """The first lines name the tracking URI, the identity variables and the CA."""
    with EmulatorProcess.start(tmp_path, tls=True) as emulator:
        text = emulator.log_file.read_text()
        assert emulator.tracking_uri in text
        assert emulator.tls_tracking_uri in text
        assert f"IDENTITY_ENDPOINT={emulator.environment()['IDENTITY_ENDPOINT']}" in text
        assert str(emulator.ca_file) in text


def test_answers_are_not_held_back(tmp_path: Path) -> None:
    """TCP_NODELAY is on: without it every answer on a kept connection waits some 40 ms."""
    with EmulatorProcess.start(tmp_path) as emulator:
        api = Api(emulator)
        seconds = []
        for _ in range(60):
            started = time.monotonic()
            api.get("experiments/search").raise_for_status()
            seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.035


def test_the_call_log(tmp_path: Path) -> None:
    """Calls in order with method, path, status and bytes; counted by template; cleared on request."""
    with EmulatorProcess.start(tmp_path) as emulator:
        api = Api(emulator)
        emulator.clear_calls()
        run_id = api.run(api.experiment("calls"))
        api.history("GET", f"/runs/{run_id}")
        calls = emulator.calls()
        assert [call["status"] for call in calls] == [200, 200, 200]
        assert calls[0]["bytes"] > 0
        assert emulator.calls(since=calls[1]["seq"]) == calls[2:]
        assert emulator.calls_summary() == {
            "GET /history/v1.0{WS}/runs/{run}": 1,
            "POST /mlflow/v2.0{WS}/api/2.0/mlflow/experiments/create": 1,
            "POST /mlflow/v2.0{WS}/api/2.0/mlflow/runs/create": 1,
        }
        emulator.clear_calls()
        assert emulator.calls() == []


def test_the_page_shows_the_workspace(tmp_path: Path) -> None:
    """A person sees experiments and runs, their names escaped."""
    with EmulatorProcess.start(tmp_path) as emulator:
        api = Api(emulator)
        api.run(api.experiment("<script>"), run_name="a & b")
        page = httpx.get(f"{emulator.http_url}/emulator")
    assert "&lt;script&gt;" in page.text
    assert "a &amp; b" in page.text
    assert "<script>" not in page.text


def test_inspection_of_models(tmp_path: Path) -> None:
    """Registered models are shown with all their versions."""
    with EmulatorProcess.start(tmp_path) as emulator:
        api = Api(emulator)
        api.post("registered-models/create", name="m")
        for _ in range(2):
            api.post("model-versions/create", name="m", source="azureml://artifacts/a/b/c")
        (model,) = emulator.registered_models()
        assert [version["version"] for version in model["versions"]] == ["1", "2"]
        assert [experiment["name"] for experiment in emulator.experiments()] == []
