"""The workspace asks us to slow down, in every way it may say so: it is obeyed, within reason."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import pytest

from tests.durability.conftest import ask_to_drain, drain_all
from tests.durability.tracking import Tracking, assert_delivered, assert_waited_for_nobody, train
from tests.durability.turning import start_turned
from tests.support.emulator import EmulatorProcess, JsonObject
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

pytestmark = pytest.mark.fault("8")
LOG_BATCH = "POST .*/runs/log-batch$"
LONGEST_WAIT = 300.0
THROTTLED = 429


def refusals(emulator: EmulatorProcess, since: int) -> list[JsonObject]:
    """The calls that were told to slow down."""
    return [call for call in emulator.calls(since=since) if call["status"] == THROTTLED]


def newest_call(emulator: EmulatorProcess) -> int:
    """The number of the last call so far."""
    calls = emulator.calls()
    return int(calls[-1]["seq"]) if calls else 0


def quiet_after(emulator: EmulatorProcess, since: int) -> float:
    """For how long the workspace was left alone after it said so first, when nothing else was under way."""
    told = refusals(emulator, since)[0]["time"]
    return float(min(call["time"] for call in emulator.calls(since=since) if call["time"] > told) - told)


def test_until_a_date(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A `Retry-After` that is a date leaves the workspace alone until then, all of it; all arrives once."""
    refused, behind = (client.create_run(experiment, name) for name in ("refused", "behind it"))
    drain_all(server)
    since = newest_call(emulator)
    date = datetime.now(UTC) + timedelta(seconds=5)
    headers = {"Retry-After": format_datetime(date, usegmt=True)}
    emulator.add_fault(match=LOG_BATCH, effect="status", status=THROTTLED, headers=headers, times=1)
    client.log_metric(refused, "loss", 0.5, 0)
    told = wait_until(lambda: refusals(emulator, since), within=120, what="a refusal")[0]["time"]
    for run in (behind, refused):
        client.log_metric(run, "loss", 0.25, 1)
        client.end(run)
    drain_all(server)
    for run in (behind, refused):
        assert_delivered(emulator, run)
    # The header knows whole seconds only.
    assert quiet_after(emulator, since) >= date.timestamp() - told - 1.1


@pytest.mark.parametrize("value", [None, "soon", "-3"])
def test_without_saying_until_when(
    value: str | None, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A 429 that names no time, or nonsense, is answered with pauses of our own; all arrives once."""
    headers = {} if value is None else {"Retry-After": value}
    since = newest_call(emulator)
    emulator.add_fault(match=LOG_BATCH, effect="status", status=THROTTLED, headers=headers, times=3)
    run = client.create_run(experiment, "some time")
    client.log_metric(run, "loss", 0.5, 0)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)
    times = [call["time"] for call in refusals(emulator, since)]
    assert len(times) == 3
    assert all(later - earlier > 0.2 for earlier, later in pairwise(times))


def test_no_client_notices(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """While the workspace refuses every call with 429, clients are served at once, and it is asked rarely."""
    since = newest_call(emulator)
    emulator.add_fault(match="/mlflow/|/history/|/artifact/", effect="status", status=THROTTLED)
    run = train(client, experiment, "throttled", steps=3)
    time.sleep(3.0)
    assert_waited_for_nobody(client)
    assert 1 <= len(refusals(emulator, since)) < 20
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, run)


def test_an_absurd_time_is_capped(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """A workspace that wants to be left alone for thirty years is asked again after five minutes."""
    turned = start_turned(emulator, tmp_path, nursery)
    with turned.server as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("absurd"), "absurd")
        drain_all(server)
        since = newest_call(emulator)
        headers = {"Retry-After": "1000000000"}
        emulator.add_fault(match=LOG_BATCH, effect="status", status=THROTTLED, headers=headers, times=1)
        client.log_metric(run, "loss", 0.5, 0)
        wait_until(lambda: ask_to_drain(server) and refusals(emulator, since), within=120, what="a refusal")
        turned.let_pass(LONGEST_WAIT - 60)
        for _ in range(3):
            assert ask_to_drain(server)["pending"] == 1
        assert len(emulator.calls(since=since)) == 1
        turned.let_pass(61)
        drain_all(server)
        assert_delivered(emulator, run)
