"""A process that only accepts, and one that only delivers."""

import time

import httpx

from tests.durability.conftest import drain, drain_all
from tests.durability.postgres.conftest import StartReplica
from tests.durability.tracking import Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.workspace import wait_until


def test_one_accepts_and_the_other_delivers(start_replica: StartReplica, emulator: EmulatorProcess) -> None:
    """What an `api` process acknowledged, files included, is delivered by the `replay` process."""
    accepting = start_replica("api", MLPROXY_ROLE="api")
    start_replica("replay", MLPROXY_ROLE="replay")
    client = Tracking(accepting.url)
    run = train(client, client.create_experiment("two roles"), "two roles")
    drain_all(accepting)
    assert_delivered(emulator, run)


def test_alone_an_accepting_process_keeps_everything(
    start_replica: StartReplica, emulator: EmulatorProcess
) -> None:
    """Without anyone to deliver, nothing reaches the workspace, and `drain` says so at its timeout."""
    accepting = start_replica("api", MLPROXY_ROLE="api")
    client = Tracking(accepting.url)
    emulator.clear_calls()
    run = train(client, client.create_experiment("kept"), "kept", steps=3)
    answer = httpx.post(
        f"{accepting.url}/api/2.0/mlproxy/drain", json={"timeout_seconds": 3}, timeout=30, trust_env=False
    ).json()
    assert answer["pending"] == client.run_status(run.run_id)["pending"] + 1 > 10
    assert [call["path"] for call in emulator.calls() if "/emulator/" not in call["path"]] == []
    start_replica("replay", MLPROXY_ROLE="replay")
    assert drain(accepting) == 0
    assert_delivered(emulator, run)


def test_a_delivering_process_answers_operators_and_refuses_clients(start_replica: StartReplica) -> None:
    """Probes, figures and status are there; a client is told where to go, in a way that it does not retry."""
    delivering = start_replica("replay", MLPROXY_ROLE="replay")
    with httpx.Client(base_url=delivering.url, trust_env=False) as http:
        for path in ("/health", "/health/ready", "/metrics", "/version", "/api/2.0/mlproxy/status"):
            assert http.get(path).status_code == 200, path
        for method, path in (
            ("POST", "/api/2.0/mlflow/runs/create"),
            ("GET", "/api/2.0/mlflow/experiments/search"),
            ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x"),
            ("GET", "/"),
        ):
            refused = http.request(method, path)
            assert refused.status_code == 501, path
            assert "MLPROXY_ROLE=replay" in refused.json()["message"]


def test_news_travel_faster_than_the_poll(start_replica: StartReplica, emulator: EmulatorProcess) -> None:
    """A point accepted by one process is delivered by another after the second for company, and little more.

    The next look at the database alone would find it half a second later, on average.
    """
    accepting = start_replica("api", MLPROXY_ROLE="api")
    start_replica("replay", MLPROXY_ROLE="replay")
    client = Tracking(accepting.url)
    run = client.create_run(client.create_experiment("news"), "news")
    # No `drain`: it would have the other hurry.
    wait_until(lambda: accepting.status()["pending"] == 0, within=120, what="the run")
    took = []
    for step in range(5):
        # Soon after a look at the database: the next one is two seconds away.
        time.sleep(0.1)
        accepted = time.monotonic()
        client.log_metric(run, "loss", 1.0, step)
        wait_until(
            lambda step=step: len(emulator.run(run.run_id)["metrics"]) > step, within=120, what="the point"
        )
        took.append(time.monotonic() - accepted)
    # Most of what a poll finds it finds later; a busy machine is not busy each time.
    assert sorted(took)[1] < 1.6, took


def test_a_flush_reaches_the_process_that_delivers(
    start_replica: StartReplica, emulator: EmulatorProcess
) -> None:
    """`drain` at an accepting process has the other ask a workspace that was away again at once."""
    accepting = start_replica("api", MLPROXY_ROLE="api")
    delivering = start_replica("replay", MLPROXY_ROLE="replay")
    client = Tracking(accepting.url)
    run = client.create_run(client.create_experiment("flushed"), "flushed")
    drain_all(accepting)
    emulator.add_fault(match="/mlflow/|/history/", effect="status", status=503, when="before")
    client.log_metric(run, "loss", 1.0, 1)
    wait_until(
        lambda: sum(fault["hits"] for fault in emulator.faults()) >= 6, within=120, what="a long pause"
    )
    assert delivering.is_running
    emulator.clear_faults()
    # The next look by itself would be eight seconds from now, or more.
    began = time.monotonic()
    drain_all(accepting)
    assert time.monotonic() - began < 7.5
