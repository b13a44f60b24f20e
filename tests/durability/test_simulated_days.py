"""The network is away for days of the server's clock: everything is kept, in order, and its age is told."""

import time
from pathlib import Path

import pytest

from tests.durability.conftest import ask_to_drain, deliver_to, drain_all
from tests.durability.tracking import Tracking, assert_delivered, assert_waited_for_nobody, train
from tests.durability.turning import start_turned
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, steps_by_key, wait_until

pytestmark = pytest.mark.fault("13")
HOUR = 3600.0
DAYS = 3
SHIFTS = 9


def test_three_days_without_a_workspace(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """72 hours without the workspace, with restarts and crashes in between: all drains, in order, once."""
    turned = start_turned(emulator, tmp_path, nursery)
    with turned.server as server:
        client = Tracking(server.url)
        experiment = client.create_experiment("three days")
        long_run = client.create_run(experiment, "over all days")
        emulator.stop()
        runs = []
        for shift in range(SHIFTS):
            for step in range(shift * 10, shift * 10 + 10):
                client.log_metric(long_run, "loss", step / 7, step)
            runs.append(train(client, experiment, f"shift {shift}", steps=2))
            ask_to_drain(server)
            turned.let_pass(DAYS * 24 * HOUR / SHIFTS)
            if shift % 3 == 2:
                server.kill() if shift % 2 else server.stop()
                server.launch()
            client.close()
            client = Tracking(server.url)
        client.end(long_run)
        status = server.status()
        assert status["lag_seconds"] == pytest.approx(DAYS * 24 * HOUR, abs=120)
        assert (status["parked"], status["uncertain"] <= 1) == (0, True)
        emulator.restart()
        drain_all(server)
        for run in [long_run, *runs]:
            assert_delivered(emulator, run)
        steps = steps_by_key(run_of(emulator, long_run.run_id).points_in_order)
        assert steps == {"loss": list(range(SHIFTS * 10))}
        status = server.status()
        assert (status["lag_seconds"], status["pending"]) == (0, 0)
        assert status["workspace"]["reachable"] is True


def test_a_name_that_cannot_be_resolved(nursery: Nursery, tmp_path: Path, emulator: EmulatorProcess) -> None:
    """A workspace whose name nobody knows costs clients nothing, is asked rarely, and parks nothing."""
    unknown = f"azureml://workspace.invalid/mlflow/v1.0{WORKSPACE_PATH}"
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_WORKSPACE=unknown) as server:
        client = Tracking(server.url)
        train(client, client.create_experiment("nowhere"), "nowhere", steps=3)
        wait_until(
            lambda: ask_to_drain(server) and server.status()["workspace"]["last_failure"],
            within=120,
            what="the failure in the status",
        )
        time.sleep(2.0)
        status = server.status()
        assert status["workspace"]["reachable"] is False
        assert (status["parked"], status["uncertain"]) == (0, 0)
        assert status["pending"] > 0
        assert_waited_for_nobody(client)
        assert server.log_file.read_text().count("attempt_failed") < 15


def test_the_way_there_is_cut_in_the_middle(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Connections break for a while, some before and some after the call took effect: all arrives once."""
    for when in ("before", "after", "before", "after"):
        emulator.add_fault(match="/mlflow/|/history/|/artifact/", effect="drop_answer", when=when, times=2)
    run = train(client, experiment, "cut", steps=5)
    drain_all(server)
    assert_delivered(emulator, run)
    assert [fault["hits"] for fault in emulator.faults()] == [2, 2, 2, 2]
