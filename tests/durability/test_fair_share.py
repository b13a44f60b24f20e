"""Whoever has little to deliver does not wait for whoever has much."""

import time
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking
from tests.integration.conftest import MakeDatabase
from tests.support.backlog import add_backlog
from tests.support.emulator import EmulatorError, EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

MILLION = 1_000_000
WORKSPACE_SECONDS = 0.2
PROMISED_SECONDS = 10


@pytest.mark.parametrize("runs_behind", [1, 500])
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_single_point_does_not_wait_for_a_million(
    database: str, runs_behind: int, emulator: EmulatorProcess, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """While a million points of others are behind, a new run with one point arrives within ten seconds.

    They are of one run, or of five hundred, and the workspace takes a fifth of a second per call.
    """
    folder = tmp_path / "server"
    settings = {} if database == "sqlite" else {"MLPROXY_DATABASE_URL": make_database("postgres")}
    url = str(settings.get("MLPROXY_DATABASE_URL", f"sqlite:///{folder}/mlproxy.db"))
    name = f"behind {database} {runs_behind}"
    with ServerProcess.start(folder, **settings) as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment(name)
        behind = [client.create_run(experiment_id, f"{number}").run_id for number in range(runs_behind)]
        client.close()
    add_backlog(url, behind, MILLION // runs_behind)
    emulator.add_fault(
        match="/mlflow/|/history/", effect="delay", when="before", delay_seconds=WORKSPACE_SECONDS
    )
    with deliver_to(emulator, folder, **settings) as server:
        client = Tracking(server.url)
        assert server.status()["pending"] > 0.9 * MILLION
        time.sleep(2)
        for number in range(3):
            began = time.monotonic()
            run = client.create_run(experiment_id, f"fresh {number}")
            client.log_metric(run, "loss", 0.5, 1)
            wait_until(lambda run=run: _has_arrived(emulator, run), within=60, what="the point")
            assert time.monotonic() - began < PROMISED_SECONDS
        assert server.status()["pending"] > 0.5 * MILLION


def _has_arrived(emulator: EmulatorProcess, run: LoggedRun) -> bool:
    try:
        return bool(emulator.run(run.run_id)["metrics"])
    except EmulatorError:
        return False


def test_large_uploads_do_not_hold_up_points(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """Twelve runs upload files to a storage that takes ten seconds for each; a point arrives meanwhile."""
    with deliver_to(emulator, tmp_path / "server") as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("uploads")
        emulator.add_fault(match="PUT .*weights.bin", effect="delay", when="before", delay_seconds=10)
        for number in range(12):
            run = client.create_run(experiment_id, f"upload {number}")
            client.upload(run, "weights.bin", b"w" * 100_000)
        wait_until(lambda: emulator.faults()[0]["hits"], within=20, what="an upload under way")
        began = time.monotonic()
        run = client.create_run(experiment_id, "point")
        client.log_metric(run, "loss", 0.5, 1)
        wait_until(lambda: _has_arrived(emulator, run), within=30, what="the point")
        assert time.monotonic() - began < 8
        emulator.clear_faults()


def test_a_throttling_workspace_is_called_half_as_often(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """A 429 halves the rate at which the workspace is called, which `/metrics` shows; it climbs again."""
    with deliver_to(emulator, tmp_path / "server", MLPROXY_WORKSPACE_CALLS_PER_SECOND=40) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("throttled"), "throttled")
        wait_until(lambda: _has_arrived_empty(emulator, run), within=20, what="the run")
        assert _rate(server) == 40
        emulator.add_fault(match="/runs/log-batch", effect="status", status=429, when="before", times=1)
        client.log_metric(run, "loss", 0.5, 1)
        wait_until(lambda: _has_arrived(emulator, run), within=30, what="the point")
        halved = _rate(server)
        assert halved < 20
        time.sleep(2)
        client.log_metric(run, "loss", 0.25, 2)
        wait_until(lambda: len(emulator.run(run.run_id)["metrics"]) == 2, within=30, what="the point")
        assert halved < _rate(server) < 40


def _has_arrived_empty(emulator: EmulatorProcess, run: LoggedRun) -> bool:
    try:
        return emulator.run(run.run_id)["status"] == "RUNNING"
    except EmulatorError:
        return False


def _rate(server: ServerProcess) -> float:
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith("mlproxy_upstream_calls_per_second")]
    return float(lines[0].split()[1])


def test_a_workspace_that_is_away_is_asked_by_one_at_a_time(
    emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """Forty runs wait for a workspace that answers 503 for a quarter of a minute: few calls are made.

    Everything arrives when it is back.
    """
    with deliver_to(emulator, tmp_path / "server") as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("away")
        runs = [client.create_run(experiment_id, f"run {number}") for number in range(40)]
        wait_until(lambda: server.status()["pending"] == 0, within=60, what="forty runs")
        emulator.add_fault(match="/mlflow/|/history/", effect="status", status=503, when="before")
        for run in runs:
            client.log_metric(run, "loss", 0.5, 1)
        time.sleep(15)
        # Those that were under way together, then one probe per wait: 0.5, 1, 2, 4, 8 s and their jitter.
        assert emulator.faults()[0]["hits"] <= 8 + 8
        emulator.clear_faults()
        began = time.monotonic()
        wait_until(lambda: all(_has_arrived(emulator, run) for run in runs), within=60, what="all points")
        assert time.monotonic() - began < 30


def test_a_run_that_always_fails_holds_up_nobody(emulator: EmulatorProcess, tmp_path: Path) -> None:
    """The workspace answers everything about one run with 500: others arrive as if it were not there.

    It is asked ever less often about that run, whose end arrives when the workspace is well again.
    """
    with deliver_to(emulator, tmp_path / "server") as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("one fails")
        broken = client.create_run(experiment_id, "broken")
        wait_until(lambda: _has_arrived_empty(emulator, broken), within=20, what="the run")
        emulator.add_fault(match=broken.run_id, effect="status", status=500, when="before")
        client.end(broken)
        slowest = 0.0
        for number in range(12):
            began = time.monotonic()
            run = client.create_run(experiment_id, f"fresh {number}")
            client.log_metric(run, "loss", 0.5, 1)
            wait_until(lambda run=run: _has_arrived(emulator, run), within=30, what="the point")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 6
        hits = emulator.faults()[0]["hits"]
        time.sleep(8)
        assert emulator.faults()[0]["hits"] - hits <= 6
        emulator.clear_faults()
        drain_all(server)
        assert emulator.run(broken.run_id)["status"] == "FINISHED"
