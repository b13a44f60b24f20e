"""Our standing with the workspace is gone for a while: no tokens, refused ones, no rights, a wrong clock."""

import time
from pathlib import Path

import pytest

from tests.durability.conftest import ask_to_drain, deliver_to, drain_all
from tests.durability.tracking import Tracking, assert_delivered, assert_waited_for_nobody, train
from tests.durability.turning import start_turned
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

pytestmark = pytest.mark.fault("9")
EVERYTHING = "/mlflow/|/history/|/artifact/"
TOKEN_ROUTE = "GET /msi/token$"
TEN_MINUTES = 600.0


@pytest.mark.parametrize("status", [401, 403])
def test_refused_for_a_while(
    status: int, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """While the workspace refuses us, clients are served at once, it is asked rarely, nothing is parked."""
    emulator.clear_calls()
    body = {"error": {"code": "Forbidden", "message": "The identity has no role here."}}
    emulator.add_fault(match=EVERYTHING, effect="status", status=status, body=body)
    run = train(client, experiment, f"refused with {status}", steps=3)
    wait_until(
        lambda: ask_to_drain(server) and server.status()["workspace"]["reachable"] is False,
        within=120,
        what="the refusal in the status",
    )
    emulator.clear_calls()
    time.sleep(3.0)
    calls = [call for call in emulator.calls() if call["status"] == status]
    assert len(calls) < 15
    status_now = server.status()
    assert (status_now["parked"], status_now["pending"] > 0) == (0, True)
    assert "no role here" in status_now["workspace"]["last_failure"]
    assert_waited_for_nobody(client)
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, run)


def test_the_token_endpoint_is_down_at_the_start(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A server starts, serves clients and says what is wrong without a token; with one, all arrives once."""
    emulator.add_fault(match=TOKEN_ROUTE, effect="status", status=500)
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        run = train(client, client.create_experiment("no token"), "no token", steps=3)
        wait_until(
            lambda: ask_to_drain(server) and server.status()["workspace"]["last_failure"],
            within=120,
            what="the missing token in the status",
        )
        status = server.status()
        assert status["token"]["failures"] > 0
        assert "managed identity" in status["workspace"]["last_failure"]
        assert_waited_for_nobody(client)
        emulator.clear_faults()
        drain_all(server)
        assert_delivered(emulator, run)


def test_the_token_endpoint_goes_down_in_the_middle(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A token that is refused cannot be replaced for a while: clients notice nothing, all arrives once."""
    first = train(client, experiment, "with a token", steps=2)
    drain_all(server)
    emulator.add_fault(match=TOKEN_ROUTE, effect="drop_answer", when="before")
    emulator.revoke_tokens()
    second = train(client, experiment, "without a token", steps=2)
    wait_until(
        lambda: ask_to_drain(server) and server.status()["token"]["failures"], within=120, what="a failure"
    )
    assert_waited_for_nobody(client)
    assert server.status()["parked"] == 0
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, first)
    assert_delivered(emulator, second)


@pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES])
def test_the_clock_is_wrong(
    ahead: float, emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A server whose clock is ten minutes off delivers as any other, and its backlog has no strange age."""
    turned = start_turned(emulator, tmp_path, nursery, stepped=ahead)
    with turned.server as server:
        client = Tracking(server.url)
        run = train(client, client.create_experiment(f"{ahead} s off"), "off", steps=3)
        assert 0 <= server.status()["lag_seconds"] < 60
        drain_all(server)
        assert_delivered(emulator, run)


@pytest.mark.parametrize("ahead", [TEN_MINUTES, -TEN_MINUTES])
def test_the_clock_is_set_while_it_runs(
    ahead: float, emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A clock that jumps while a lane waits holds it up for no longer than it jumped, and loses nothing."""
    turned = start_turned(emulator, tmp_path, nursery)
    with turned.server as server:
        client = Tracking(server.url)
        experiment = client.create_experiment(f"set by {ahead} s")
        emulator.add_fault(match=EVERYTHING, effect="status", status=503, times=3)
        before = train(client, experiment, "before", steps=3)
        wait_until(
            lambda: ask_to_drain(server) and emulator.faults()[0]["hits"] == 3, within=120, what="failures"
        )
        turned.set_wall_clock(ahead)
        after = train(client, experiment, "after", steps=3)
        if ahead < 0:
            turned.let_pass(-ahead)
        drain_all(server)
        assert_delivered(emulator, before)
        assert_delivered(emulator, after)
        assert 0 <= server.status()["lag_seconds"] < 60
