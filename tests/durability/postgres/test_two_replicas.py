"""Two replicas write to the same runs, and deliver them: nothing is skipped, nothing is doubled."""

import signal
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.durability.conftest import drain_all
from tests.durability.crashing import is_stopped
from tests.durability.postgres.conftest import StartReplica
from tests.durability.tracking import LoggedRun, Tracking
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

RUNS = 10
STEPS = 12


class Client(threading.Thread):
    """Logs a metric of its own to each of ten runs, step by step, through one replica."""

    def __init__(self, server: ServerProcess, name: str, runs: list[LoggedRun]) -> None:
        super().__init__(daemon=True)
        self._tracking = Tracking(server.url)
        self._key = name
        self._runs = runs
        self.steps = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for step in range(STEPS):
                for run in self._runs:
                    private = LoggedRun(run.run_id, run.artifact_root, run.name)
                    self._tracking.log_metric(private, self._key, step / 4, step)
                self.steps = step + 1
        except BaseException as error:
            self.error = error
        finally:
            self._tracking.close()


def assert_gapless(database_url: str, run_ids: list[str]) -> None:
    """Every lane has settled all it ever gave out, and keeps nothing."""
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        lanes = connection.execute(
            text(
                "SELECT last_position, settled_position FROM runs JOIN lanes ON lane_id = data_lane_id"
                " WHERE run_id = ANY(:run_ids)"
            ),
            {"run_ids": run_ids},
        ).all()
        left = connection.execute(text("SELECT count(*) FROM journal_blocks")).scalar_one()
    engine.dispose()
    clients = 4
    assert [lane.last_position for lane in lanes] == [1 + clients * STEPS] * RUNS
    assert [lane.settled_position for lane in lanes] == [1 + clients * STEPS] * RUNS
    assert left == 0


def assert_complete(emulator: EmulatorProcess, runs: list[LoggedRun], names: list[str]) -> None:
    """Each run holds each client's points once, in the order in which they were logged."""
    for run in runs:
        held = run_of(emulator, run.run_id)
        by_key: dict[str, list[int]] = {}
        for key, step, _, _ in held.points_in_order:
            by_key.setdefault(key, []).append(step)
        assert by_key == {name: list(range(STEPS)) for name in names}


@pytest.mark.fault("16")
@pytest.mark.parametrize("pause", ["sleep:3", "stop"])
def test_one_pauses_between_its_statements_and_its_commit(
    pause: str, start_replica: StartReplica, database_url: str, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """One of two is held up in the middle of a transaction; the other waits only as long as Postgres lets it.

    Both write to the same ten runs. Positions have no gap, and everything arrives once, in order.
    """
    script = tmp_path / "failpoints"
    script.write_text("")
    paused = start_replica("paused", MLPROXY_TEST_FAILPOINTS=f"@{script}")
    other = start_replica("other")
    tracking = Tracking(other.url)
    experiment_id = tracking.create_experiment(f"paused {pause}")
    runs = [tracking.create_run(experiment_id, f"run {number}") for number in range(RUNS)]
    names = ["a", "b", "c", "d"]
    clients = [Client((paused, other)[number % 2], name, runs) for number, name in enumerate(names)]
    for client in clients:
        client.start()
    time.sleep(0.3)
    script.write_text(f"commit.before={pause}")
    if pause == "stop":
        wait_until(lambda: is_stopped(paused.pid), within=120, what="a replica stopped in a transaction")
        began = time.monotonic()
        for client in clients[1::2]:
            client.join(120)
        assert [client.steps for client in clients[1::2]] == [STEPS] * 2
        assert time.monotonic() - began < 60
        script.write_text("")
        paused.send_signal(signal.SIGCONT)
    for client in clients:
        client.join(240)
    assert [client.error for client in clients] == [None] * 4
    drain_all(other)
    assert_complete(emulator, runs, names)
    assert_gapless(database_url, [run.run_id for run in runs])


def test_two_that_deliver_share_the_work_and_send_nothing_twice(
    start_replica: StartReplica, database_url: str, emulator: EmulatorProcess
) -> None:
    """Four clients write to ten runs through two replicas, both of which deliver: each point arrives once."""
    one, other = start_replica("one"), start_replica("other")
    tracking = Tracking(one.url)
    experiment_id = tracking.create_experiment("shared")
    runs = [tracking.create_run(experiment_id, f"run {number}") for number in range(RUNS)]
    names = ["a", "b", "c", "d"]
    clients = [Client((one, other)[number % 2], name, runs) for number, name in enumerate(names)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(240)
    assert [client.error for client in clients] == [None] * 4
    drain_all(one)
    assert_complete(emulator, runs, names)
    assert_gapless(database_url, [run.run_id for run in runs])
    for server in (one, other):
        said = server.log_file.read_text()
        assert "group_rolled_back" not in said, "no two transactions waited for each other"
        assert "lane_failed" not in said


def test_two_that_start_together_on_an_empty_database(
    start_replica: StartReplica, database_url: str, emulator: EmulatorProcess
) -> None:
    """Of replicas that are started at the same moment each finds a database it can use."""
    started: dict[str, ServerProcess] = {}
    threads = [
        threading.Thread(target=lambda name=name: started.update({name: start_replica(name)}))
        for name in ("one", "two", "three")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(started) == {"one", "two", "three"}
    assert {server.status()["pending"] for server in started.values()} == {0}
