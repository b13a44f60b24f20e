"""What goes wrong while a refused batch is being halved: nothing of it is skipped, nothing doubled."""

from collections.abc import Iterator

import httpx
import pytest

from tests.durability.conftest import drain
from tests.durability.crashing import CrashingServer
from tests.durability.test_crash_points import start_crashing
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import PARENT_TAG, wait_until

pytestmark = pytest.mark.fault("10")
LOG_BATCH = "POST .*/runs/log-batch$"
INTERRUPTIONS: dict[str, dict[str, object]] = {
    "429": {"effect": "status", "status": 429},
    "503 before": {"effect": "status", "status": 503, "when": "before"},
    "503 after": {"effect": "status", "status": 503, "when": "after"},
    "answer lost": {"effect": "drop_answer", "when": "after"},
    "403": {"effect": "status", "status": 403},
}


def contest(emulator: EmulatorProcess, server: ServerProcess, run: LoggedRun) -> None:
    """Let someone else log a param to the run, in the workspace itself."""
    drain(server)
    httpx.post(
        f"{emulator.http_url}/mlflow/v2.0{WORKSPACE_PATH}/api/2.0/mlflow/runs/log-parameter",
        json={"run_id": run.run_id, "key": "contested", "value": "theirs"},
        headers={"Authorization": f"Bearer {emulator.token()}"},
        trust_env=False,
    ).raise_for_status()


def log_around_what_is_refused(client: Tracking, run: LoggedRun) -> None:
    """Eight points and a param that the workspace will refuse, which are sure to become one batch."""
    points = [("loss", step / 3, step) for step in range(8)]
    client.log_points(run, points, params={"contested": "ours"})
    run.params["contested"] = "theirs"


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("what", INTERRUPTIONS)
def test_an_interruption_between_the_halves(
    what: str, calls: int, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """When a half is to come again later, or its answer is lost, the others wait, and all arrives once."""
    run = client.create_run(experiment, "halved")
    contest(emulator, server, run)
    before = server.status()["parked"]
    emulator.add_fault(match=LOG_BATCH, after_calls=calls, times=1, **INTERRUPTIONS[what])
    log_around_what_is_refused(client, run)
    drain(server)
    assert emulator.faults()[0]["hits"] == 1
    assert server.status()["parked"] == before + 1
    assert_delivered(emulator, run)


@pytest.fixture(scope="module")
def crashing(
    module_emulator: EmulatorProcess, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CrashingServer]:
    """A server that dies where it is told to."""
    running = start_crashing(module_emulator, nursery, tmp_path_factory.mktemp("crashing"))
    yield running
    if running.server.is_running:
        running.server.kill()


@pytest.mark.fault("1")
@pytest.mark.parametrize("sends", [1, 2, 4])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_between_the_halves(
    moment: str, sends: int, crashing: CrashingServer, emulator: EmulatorProcess
) -> None:
    """Killed at each of the sends that halving takes: what is refused is parked, the rest is there once."""
    client, server = crashing.client, crashing.server
    run = client.create_run(client.create_experiment(f"killed {moment} send {sends}"), "halved")
    contest(emulator, server, run)
    parked = server.status()["parked"]
    crashing.arm(f"send.{moment}=kill@{sends}")
    log_around_what_is_refused(client, run)
    crashing.die_while_draining()
    crashing.revive()
    drain(server)
    assert server.status()["parked"] == parked + 1
    assert_delivered(emulator, run)


def test_a_child_of_a_parent_that_is_refused(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A parent whose creation the workspace refuses for good does not hold up its child."""
    parent = client.create_run(experiment, "refused parent")
    body = {"error": {"code": "ValidationError", "message": "This run may not be."}}
    emulator.add_fault(match=f"PATCH .*/runs/{parent.run_id}$", effect="status", status=409, body=body)
    child = client.create_child(experiment, "orphan", parent)
    client.log_metric(child, "loss", 0.5, 0)
    client.end(child)
    wait_until(
        lambda: client.run_status(child.run_id)["pending"] == 0, within=120, what="the child delivered"
    )
    assert client.run_status(parent.run_id)["parked"] >= 1
    assert_delivered(emulator, child)
    tags = client.get("runs/get", run_id=child.run_id)["run"]["data"]["tags"]
    assert {tag["value"] for tag in tags if tag["key"] == PARENT_TAG} == {parent.run_id}
