"""SIGTERM: what is in flight is finished, what would take too long is left for the next life, exit code 0."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import API, ARTIFACTS, Tracking, assert_delivered
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

pytestmark = pytest.mark.fault("17")
LONGEST_STOP_SECONDS = 40.0
"""The process gives what is under way fifteen seconds; the rest is for a busy machine."""


@pytest.fixture(params=["sqlite", "postgres"])
def stopping(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    emulator: EmulatorProcess,
    nursery: Nursery,
    tmp_path: Path,
) -> Iterator[ServerProcess]:
    """A server of its own, to be stopped."""
    settings = {}
    if request.param == "postgres":
        settings["MLPROXY_DATABASE_URL"] = make_database("postgres")
    with deliver_to(emulator, tmp_path / "server", nursery, **settings) as server:
        yield server


def leases_of(server: ServerProcess) -> int:
    """How many lanes are still held, in the database of a server that has ended."""
    url = server.environment().get("MLPROXY_DATABASE_URL") or f"sqlite:///{server.data_dir}/mlproxy.db"
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        held = connection.execute(text("SELECT count(*) FROM lanes WHERE lease_token IS NOT NULL")).scalar()
    engine.dispose()
    return int(held or 0)


def test_what_is_being_sent_is_finished_and_every_lease_given_back(
    stopping: ServerProcess, emulator: EmulatorProcess
) -> None:
    """The calls under way are waited for, no other is begun, and no lane stays held.

    Thirty runs deliver to a workspace that takes seconds per call. Nothing has to be read back afterwards.
    """
    client = Tracking(stopping.url)
    experiment_id = client.create_experiment(f"stopped {stopping.port}")
    runs = [client.create_run(experiment_id, f"run {number}") for number in range(30)]
    drain_all(stopping)
    emulator.add_fault(match="/runs/log-batch", effect="delay", when="after", delay_seconds=4)
    for run in runs:
        client.log_metric(run, "loss", 0.5, 1)
    wait_until(lambda: emulator.faults()[0]["hits"] >= 8, within=120, what="eight calls under way")
    began = time.monotonic()
    assert stopping.stop() == 0
    assert time.monotonic() - began < LONGEST_STOP_SECONDS
    assert leases_of(stopping) == 0
    sent = emulator.faults()[0]["hits"]
    assert sent < len(runs)
    emulator.clear_faults()
    stopping.launch()
    assert stopping.status()["uncertain"] == 0
    drain_all(stopping)
    for run in runs:
        assert_delivered(emulator, run)


def test_an_upload_that_stalls_is_left_for_the_next_life(
    stopping: ServerProcess, emulator: EmulatorProcess
) -> None:
    """Storage takes minutes to answer: the process ends in time, with 0, and the next delivers the file."""
    client = Tracking(stopping.url)
    run = client.create_run(client.create_experiment(f"stalled {stopping.port}"), "stalled")
    drain_all(stopping)
    emulator.add_fault(match="PUT .*weights.bin", effect="delay", when="before", delay_seconds=300, times=1)
    client.upload(run, "weights.bin", b"w" * 200_000)
    wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="an upload under way")
    began = time.monotonic()
    assert stopping.stop() == 0
    assert time.monotonic() - began < LONGEST_STOP_SECONDS
    assert leases_of(stopping) == 0
    emulator.clear_faults()
    stopping.launch()
    client = Tracking(stopping.url)
    client.end(run)
    drain_all(stopping)
    assert_delivered(emulator, run)


def test_requests_under_way_are_answered(stopping: ServerProcess, emulator: EmulatorProcess) -> None:
    """A client is in the middle of an upload when SIGTERM comes: it may finish, and what it sent is kept."""
    client = Tracking(stopping.url)
    run = client.create_run(client.create_experiment(f"answered {stopping.port}"), "answered")
    content = b"x" * 300_000
    has_begun = threading.Event()

    def trickle() -> Iterator[bytes]:
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]
            has_begun.set()
            time.sleep(0.5)

    answers: list[httpx.Response] = []
    path = f"{stopping.url}{ARTIFACTS}/{run.artifact_root}/slow.bin"
    upload = threading.Thread(
        target=lambda: answers.append(httpx.put(path, content=trickle(), timeout=60, trust_env=False))
    )
    upload.start()
    assert has_begun.wait(60)
    assert stopping.stop() == 0
    upload.join(60)
    assert [answer.status_code for answer in answers] == [200]
    stopping.launch()
    assert Tracking(stopping.url).download(run, "slow.bin") == content


def test_a_load_balancer_has_time_to_notice(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """With a stop delay, readiness says no at once, and for that long requests are served all the same.

    Each answer closes its connection, so that none is cut when the process ends. Who does not want to wait
    so long says so twice.
    """
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_STOP_DELAY_SECONDS=300) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("balanced"), "balanced")
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            before = http.get("/health/ready")
            assert (before.status_code, before.headers.get("connection")) == (200, None)
            server.send_signal(signal.SIGTERM)
            wait_until(lambda: http.get("/health/ready").status_code == 503, within=60, what="not ready")
            assert http.get("/health/live").status_code == 200
            body = {"run_id": run.run_id, "key": "late", "value": "yes"}
            late = http.post(f"{API}/runs/set-tag", json=body)
            assert (late.status_code, late.headers["connection"]) == (200, "close")
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < LONGEST_STOP_SECONDS
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=60)
        server.restart(MLPROXY_STOP_DELAY_SECONDS=0)
        tags = Tracking(server.url).get("runs/get", run_id=run.run_id)["run"]["data"]["tags"]
        assert {"key": "late", "value": "yes"} in tags


def test_a_delay_ends_by_itself(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """One signal is enough: the process ends when the delay is over, and not before."""
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_STOP_DELAY_SECONDS=2) as server:
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 2 <= time.monotonic() - began < LONGEST_STOP_SECONDS
