"""Whoever has little to deliver does not wait for whoever has much."""

import statistics
import time
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking
from tests.support.backlog import add_backlog
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorError, EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

MILLION = 1_000_000
WORKSPACE_SECONDS = 0.2
CALLS_UNDER_WAY = 20
PROMISED_SECONDS = 10


@pytest.mark.parametrize(("runs_behind", "points_each"), [(1, MILLION), (500, 400)], ids=["1", "500"])
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_single_point_does_not_wait_for_a_million(
    database: str,
    runs_behind: int,
    points_each: int,
    emulator: EmulatorProcess,
    nursery: Nursery,
    make_database: MakeDatabase,
    tmp_path: Path,
) -> None:
    """While a million points of one run are behind, or five hundred runs, a new point arrives in ten seconds.

    The workspace takes a fifth of a second per call.
    """
    folder = tmp_path / "server"
    settings = {} if database == "sqlite" else {"MLPROXY_DATABASE_URL": make_database("postgres")}
    url = str(settings.get("MLPROXY_DATABASE_URL", f"sqlite:///{folder}/mlproxy.db"))
    name = f"behind {database} {runs_behind}"
    with ServerProcess.start(folder, nursery=nursery, **settings) as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment(name)
        behind = [client.create_run(experiment_id, f"{number}").run_id for number in range(runs_behind)]
        client.close()
    add_backlog(url, behind, points_each)
    emulator.add_fault(
        match="/mlflow/|/history/", effect="delay", when="before", delay_seconds=WORKSPACE_SECONDS
    )
    with deliver_to(emulator, folder, nursery, **settings) as server:
        client = Tracking(server.url)
        backlog = runs_behind * points_each
        assert server.status()["pending"] > 0.9 * backlog
        wait_until(
            lambda: emulator.faults()[0]["hits"] > CALLS_UNDER_WAY, within=120, what="delivery under way"
        )
        took = [_seconds_of_a_new_run(client, emulator, experiment_id, f"fresh {n}") for n in range(3)]
        # Who waits for the others waits for all of them each time; a machine that stands still does so once.
        assert statistics.median(took) < PROMISED_SECONDS, took
        assert server.status()["pending"] > 0.1 * backlog
        server.kill()


def _seconds_of_a_new_run(
    client: Tracking, emulator: EmulatorProcess, experiment_id: str, name: str
) -> float:
    """How long it takes a new run with one point to arrive."""
    began = time.monotonic()
    run = client.create_run(experiment_id, name)
    client.log_metric(run, "loss", 0.5, 1)
    wait_until(lambda: _has_arrived(emulator, run), within=120, what="the point")
    return time.monotonic() - began


def _has_arrived(emulator: EmulatorProcess, run: LoggedRun) -> bool:
    try:
        return bool(emulator.run(run.run_id)["metrics"])
    except EmulatorError:
        return False


def test_large_uploads_do_not_hold_up_points(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """Twelve runs upload files to a storage that does not answer; a point arrives all the same."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("uploads")
        emulator.add_fault(match="PUT .*weights.bin", effect="delay", when="before", delay_seconds=600)
        for number in range(12):
            run = client.create_run(experiment_id, f"upload {number}")
            client.upload(run, "weights.bin", b"w" * 100_000)
        wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="an upload under way")
        _seconds_of_a_new_run(client, emulator, experiment_id, "point")
        server.kill()


def test_a_throttling_workspace_is_called_half_as_often(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A 429 halves the rate at which the workspace is called, which `/metrics` shows; it climbs again."""
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_WORKSPACE_CALLS_PER_SECOND=40) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("throttled"), "throttled")
        wait_until(lambda: _has_arrived_empty(emulator, run), within=120, what="the run")
        assert _rate(server) == 40
        emulator.add_fault(match="/runs/log-batch", effect="status", status=429, when="before", times=1)
        client.log_metric(run, "loss", 0.5, 1)
        wait_until(lambda: _has_arrived(emulator, run), within=120, what="the point")
        halved = _rate(server)
        assert halved < 20
        client.log_metric(run, "loss", 0.25, 2)
        wait_until(lambda: len(emulator.run(run.run_id)["metrics"]) == 2, within=120, what="the point")
        wait_until(lambda: _rate(server) > halved, within=60, what="a rate that climbs")


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
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """Forty runs wait for a workspace that answers 503 for a while: few calls are made.

    Everything arrives when it is back.
    """
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("away")
        runs = [client.create_run(experiment_id, f"run {number}") for number in range(40)]
        drain_all(server)
        emulator.add_fault(match="/mlflow/|/history/", effect="status", status=503, when="before")
        for run in runs:
            client.log_metric(run, "loss", 0.5, 1)
        time.sleep(8)
        # Those that were under way together, then one probe per wait: 0.5, 1, 2, 4 s and their jitter.
        assert emulator.faults()[0]["hits"] <= 8 + 6
        emulator.clear_faults()
        wait_until(lambda: all(_has_arrived(emulator, run) for run in runs), within=90, what="all points")


def test_a_run_that_always_fails_holds_up_nobody(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """The workspace answers everything about one run with 500: others arrive as if it were not there.

    It is asked ever less often about that run, whose end arrives when the workspace is well again.
    """
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        experiment_id = client.create_experiment("one fails")
        broken = client.create_run(experiment_id, "broken")
        wait_until(lambda: _has_arrived_empty(emulator, broken), within=120, what="the run")
        emulator.add_fault(match=broken.run_id, effect="status", status=500, when="before")
        client.end(broken)
        took = [_seconds_of_a_new_run(client, emulator, experiment_id, f"fresh {n}") for n in range(8)]
        assert statistics.median(took) < 6, took
        hits = emulator.faults()[0]["hits"]
        time.sleep(5)
        assert emulator.faults()[0]["hits"] - hits <= 4
        emulator.clear_faults()
        drain_all(server)
        assert emulator.run(broken.run_id)["status"] == "FINISHED"
