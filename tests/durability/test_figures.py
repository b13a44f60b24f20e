"""What `/metrics` counts of deliveries, at a real server before a workspace that fails."""

import re

import httpx
import pytest

from tests.durability.conftest import drain_all
from tests.durability.tracking import Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess

LOG_BATCH = "POST .*/runs/log-batch$"


def figures(server: ServerProcess) -> dict[str, float]:
    """Every figure with its labels, as Prometheus would read it."""
    text = httpx.get(f"{server.url}/metrics", timeout=60, trust_env=False).raise_for_status().text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


@pytest.mark.parametrize(
    ("fault", "failure_class", "outcome"),
    [
        ({"effect": "status", "status": 429}, "throttled", "retry"),
        ({"effect": "status", "status": 503}, "server_error", "uncertain"),
        ({"effect": "status", "status": 403}, "credential", "wait"),
        ({"effect": "drop_answer", "when": "after"}, "connection", "uncertain"),
    ],
)
def test_every_attempt_is_counted_by_what_became_of_it(
    fault: dict[str, object],
    failure_class: str,
    outcome: str,
    emulator: EmulatorProcess,
    server: ServerProcess,
    client: Tracking,
    experiment: str,
) -> None:
    """What must be made again is counted by the trouble it met; deliveries and throttled calls apart."""
    before = figures(server)
    emulator.add_fault(match=LOG_BATCH, times=1, **fault)
    run = train(client, experiment, f"counted {failure_class}", steps=3)
    drain_all(server)
    assert_delivered(emulator, run)
    after = figures(server)

    def added(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    assert added(f'mlproxy_retries_total{{class="{failure_class}"}}') == 1
    assert added(f'mlproxy_replayed_total{{outcome="{outcome}"}}') == 1
    assert added('mlproxy_replayed_total{outcome="delivered"}') > 0
    assert added("mlproxy_upstream_429_total") == (failure_class == "throttled")
    assert added("mlproxy_lease_lost_total") == 0


def test_what_waits_is_shown_by_kind_and_workspace(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A backlog names the workspace it is for and the lanes it waits in, and is gone after its delivery."""
    emulator.add_fault(match=LOG_BATCH, effect="status", status=503)
    train(client, experiment, "held up", steps=3)
    shown = figures(server)
    waiting = {name: value for name, value in shown.items() if name.startswith("mlproxy_pending{")}
    assert any(
        re.search(r'kind="run_data",workspace="\w', name) and value > 0 for name, value in waiting.items()
    )
    assert len(waiting) == 5
    emulator.clear_faults()
    drain_all(server)
    shown = figures(server)
    assert sum(value for name, value in shown.items() if name.startswith("mlproxy_pending{")) == 0
    assert any(name.startswith("mlproxy_last_success_timestamp_seconds{workspace=") for name in shown)
