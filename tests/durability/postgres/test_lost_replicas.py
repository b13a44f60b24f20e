"""A replica is killed, stopped past its lease, or cut from the database: another takes over, once."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.durability.conftest import DRAIN_SECONDS, drain_all
from tests.durability.crashing import is_stopped
from tests.durability.postgres.conftest import StartReplica
from tests.durability.tracking import Tracking, assert_delivered
from tests.support.emulator import EmulatorProcess
from tests.support.postgres import PostgresProcess
from tests.support.server import ServerProcess
from tests.support.tcp_proxy import TcpProxy
from tests.support.workspace import wait_until

LEASE_SECONDS = 6
SETTLE_SECONDS = 2.0
LESS_THAN_A_LEASE = 90.0
"""Who waits for the lease of the lost one to end waits for two minutes, where nothing else is said."""
LOG_BATCH = "POST .*/runs/log-batch$"


class Scene:
    """One process that accepts, one that delivers and is about to be lost, and its heir."""

    def __init__(
        self, start_replica: StartReplica, emulator: EmulatorProcess, name: str, **lost: object
    ) -> None:
        self._start_replica = start_replica
        self._emulator = emulator
        self._settings = {"MLPROXY_ROLE": "replay", "MLPROXY_SETTLE_SECONDS": SETTLE_SECONDS}
        self.accepting = start_replica("accepting", MLPROXY_ROLE="api")
        self.lost = start_replica("lost", **{**self._settings, **lost})
        self.client = Tracking(self.accepting.url)
        self.run = self.client.create_run(self.client.create_experiment(name), name)
        drain_all(self.accepting)

    def start_heir(self, **settings: object) -> ServerProcess:
        return self._start_replica("heir", **{**self._settings, **settings})

    @contextmanager
    def in_the_middle_of_a_send(self, *, when: str, seconds: float) -> Iterator[None]:
        """The one that will be lost has sent a point, which took effect (`after`) or not yet (`before`)."""
        self._emulator.add_fault(match=LOG_BATCH, effect="delay", when=when, delay_seconds=seconds, times=1)
        self.client.log_metric(self.run, "loss", 0.5, 1)
        wait_until(lambda: self._emulator.faults()[0]["hits"], within=120, what="a log-batch under way")
        yield

    def assert_done(self, *, within: float = DRAIN_SECONDS) -> None:
        """All arrives in this time, and a fresh write after it."""
        drain_all(self.accepting, timeout=within)
        self.client.log_metric(self.run, "loss", 0.25, 2)
        self.client.end(self.run)
        drain_all(self.accepting)
        assert_delivered(self._emulator, self.run)


@pytest.mark.fault("1", "16")
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_it_sends(when: str, start_replica: StartReplica, emulator: EmulatorProcess) -> None:
    """Though its lease lasts two minutes, the heir takes over within seconds of `kill -9`.

    The database has seen the session end. The heir reads back before it sends: nothing is there twice.
    """
    scene = Scene(start_replica, emulator, f"killed {when}")
    scene.start_heir()
    with scene.in_the_middle_of_a_send(when=when, seconds=4):
        scene.lost.kill()
    scene.assert_done(within=LESS_THAN_A_LEASE)


@pytest.mark.fault("16")
def test_stopped_past_its_lease_while_it_sends(
    start_replica: StartReplica, emulator: EmulatorProcess
) -> None:
    """SIGSTOP in the middle of a send, for longer than the lease: the heir delivers.

    The one that was stopped finds itself too late when it goes on, and changes nothing.
    """
    scene = Scene(start_replica, emulator, "stopped", MLPROXY_LEASE_SECONDS=LEASE_SECONDS)
    with scene.in_the_middle_of_a_send(when="after", seconds=5):
        scene.lost.send_signal(signal.SIGSTOP)
    try:
        scene.start_heir(MLPROXY_LEASE_SECONDS=LEASE_SECONDS)
        scene.client.log_metric(scene.run, "loss", 0.75, 3)
        drain_all(scene.accepting)
    finally:
        scene.lost.send_signal(signal.SIGCONT)
    scene.assert_done()
    wait_until(lambda: "lease_lost" in scene.lost.log_file.read_text(), within=120, what="lease_lost")


@pytest.mark.fault("16")
def test_stopped_between_its_intent_and_its_send(
    start_replica: StartReplica, emulator: EmulatorProcess
) -> None:
    """Stopped after it wrote down what it will send: when it goes on after its lease, it does not send it."""
    scene = Scene(
        start_replica,
        emulator,
        "intent",
        MLPROXY_LEASE_SECONDS=LEASE_SECONDS,
        # The first sends are those of the experiment and of the run.
        MLPROXY_TEST_FAILPOINTS="send.before=stop@3",
    )
    emulator.clear_calls()
    scene.client.log_metric(scene.run, "loss", 0.5, 1)
    wait_until(lambda: is_stopped(scene.lost.pid), within=120, what="a replica stopped before its send")
    scene.start_heir(MLPROXY_LEASE_SECONDS=LEASE_SECONDS)
    drain_all(scene.accepting)
    scene.lost.send_signal(signal.SIGCONT)
    wait_until(lambda: "lease_lost" in scene.lost.log_file.read_text(), within=120, what="lease_lost")
    batches = [call for call in emulator.calls() if call["path"].endswith("/runs/log-batch")]
    assert len(batches) == 1
    scene.assert_done()


@pytest.mark.fault("16")
@pytest.mark.parametrize("how", ["cut", "silence"])
def test_cut_from_the_database_while_it_sends(
    how: str,
    start_replica: StartReplica,
    emulator: EmulatorProcess,
    running_postgres: PostgresProcess,
    database_url: str,
) -> None:
    """It can reach the workspace but not the database: the heir delivers.

    When the wire is whole again both go on together without sending anything twice.
    """
    name = database_url.rpartition("/")[2]
    with TcpProxy(running_postgres.port) as wire:
        scene = Scene(
            start_replica,
            emulator,
            f"wire {how}",
            MLPROXY_DATABASE_URL=running_postgres.url(name, port=wire.port),
            MLPROXY_LEASE_SECONDS=LEASE_SECONDS,
        )
        scene.start_heir(MLPROXY_LEASE_SECONDS=LEASE_SECONDS)
        with scene.in_the_middle_of_a_send(when="after", seconds=5):
            (wire.cut if how == "cut" else wire.silence)()
        scene.client.log_metric(scene.run, "loss", 0.75, 3)
        drain_all(scene.accepting)
        wire.cut()
        wire.heal()
        scene.assert_done()
        assert scene.lost.is_running
        wait_until(lambda: _serves(scene.lost), within=120, what="the lost one to find the database again")
        assert scene.lost.stop() == 0


def _serves(server: ServerProcess) -> bool:
    try:
        return server.status()["pending"] == 0
    except Exception:
        return False


@pytest.mark.fault("16")
def test_a_restart_of_the_database_costs_nobody_a_lease(
    start_replica: StartReplica, emulator: EmulatorProcess, running_postgres: PostgresProcess
) -> None:
    """A restart ends the sessions of all: nobody takes the living for dead, and what they hold from them."""
    scene = Scene(start_replica, emulator, "restarted")
    scene.start_heir()
    with scene.in_the_middle_of_a_send(when="after", seconds=8):
        running_postgres.stop()
        running_postgres.launch()
    scene.assert_done()
    for name in ("lost", "heir"):
        assert "lease_lost" not in (scene.lost.data_dir.parent / name / "server.log").read_text()


@pytest.fixture
def clocks(tmp_path: Path) -> dict[str, Path]:
    """Two clocks that are twenty minutes apart."""
    files = {"ahead": tmp_path / "clock-ahead", "behind": tmp_path / "clock-behind"}
    files["ahead"].write_text("0 600")
    files["behind"].write_text("0 -600")
    return files


@pytest.mark.fault("9", "16")
@pytest.mark.parametrize(("accepting", "delivering"), [("ahead", "behind"), ("behind", "ahead")])
def test_what_one_clock_accepts_another_delivers_at_once(
    accepting: str,
    delivering: str,
    clocks: dict[str, Path],
    start_replica: StartReplica,
    emulator: EmulatorProcess,
) -> None:
    """One machine's clock is ten minutes fast, the other's ten minutes slow: nothing waits for that."""
    server = start_replica("accepting", MLPROXY_ROLE="api", MLPROXY_TEST_CLOCK=clocks[accepting])
    start_replica("delivering", MLPROXY_ROLE="replay", MLPROXY_TEST_CLOCK=clocks[delivering])
    client = Tracking(server.url)
    run = client.create_run(client.create_experiment(f"{accepting} accepts"), "run")
    client.log_metric(run, "loss", 0.5, 1)
    wait_until(lambda: server.status()["pending"] == 0, within=120, what="delivery without anyone asking")
    assert server.status()["lag_seconds"] == 0
    client.log_metric(run, "loss", 0.25, 2)
    assert server.status()["lag_seconds"] < 60
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)


@pytest.mark.fault("9", "16")
@pytest.mark.parametrize(("killed", "heir"), [("ahead", "behind"), ("behind", "ahead")])
def test_leases_hold_and_end_whatever_the_clocks_say(
    killed: str, heir: str, clocks: dict[str, Path], start_replica: StartReplica, emulator: EmulatorProcess
) -> None:
    """A lease of the one is respected by the other, for whom it seems long over, or to last for ever.

    When its owner is killed the other takes over, and nothing is there twice.
    """
    settings = {"MLPROXY_ROLE": "replay", "MLPROXY_SETTLE_SECONDS": SETTLE_SECONDS}
    scene = Scene(start_replica, emulator, f"{killed} killed", MLPROXY_TEST_CLOCK=clocks[killed])
    with scene.in_the_middle_of_a_send(when="after", seconds=4):
        other = start_replica("heir", **settings, MLPROXY_TEST_CLOCK=clocks[heir])
        # Time enough to take the lane, if its lease seemed to be over.
        time.sleep(2.5)
    wait_until(lambda: scene.accepting.status()["pending"] == 0, within=120, what="the answer to be settled")
    assert "lease_lost" not in scene.lost.log_file.read_text()
    emulator.clear_faults()
    emulator.add_fault(match=LOG_BATCH, effect="delay", when="after", delay_seconds=4, times=1)
    scene.client.log_metric(scene.run, "loss", 0.75, 3)
    wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="a log-batch under way")
    scene.lost.kill()
    scene.assert_done(within=LESS_THAN_A_LEASE)
    assert other.is_running
