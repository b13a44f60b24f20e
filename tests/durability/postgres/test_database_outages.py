"""The database goes away under load and comes back: nobody is told anything untrue, and nothing is lost."""

import threading
import time
from collections import Counter

import httpx
import pytest

from tests.durability.conftest import drain_all
from tests.durability.postgres.conftest import StartReplica
from tests.durability.tracking import API, BASE_MS, Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, start_client
from tests.support.postgres import PostgresProcess
from tests.support.server import ServerProcess
from tests.support.tcp_proxy import TcpProxy
from tests.support.workspace import point, run_of, runs_of, steps_by_key, wait_until


class Logger(threading.Thread):
    """Logs one point after another; asks again only when it is told to (429 with `Retry-After`)."""

    def __init__(self, server: ServerProcess, experiment_id: str) -> None:
        super().__init__(daemon=True)
        self._http = httpx.Client(base_url=server.url, timeout=120.0, trust_env=False)
        self._stop_event = threading.Event()
        self.answers: Counter[int] = Counter()
        self.unexpected: list[str] = []
        self.slowest_seconds = 0.0
        self.steps = 0
        body = {"experiment_id": experiment_id, "start_time": BASE_MS}
        self.run_id = self._http.post(f"{API}/runs/create", json=body).json()["run"]["info"]["run_id"]

    def run(self) -> None:
        while not self._stop_event.is_set():
            row = {"key": "loss", "value": self.steps, "timestamp": BASE_MS, "step": self.steps}
            began = time.monotonic()
            answer = self._http.post(f"{API}/runs/log-metric", json={"run_id": self.run_id, **row})
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            self.answers[answer.status_code] += 1
            if answer.is_success:
                self.steps += 1
            elif answer.status_code == 429:
                time.sleep(float(answer.headers["retry-after"]) / 4)
            else:
                self.unexpected.append(answer.text)

    def finish(self) -> None:
        """Let it end its call."""
        self._stop_event.set()
        self.join(120)
        assert not self.is_alive()


@pytest.mark.fault("16")
@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_restart_of_the_database_under_load(
    how: str, start_replica: StartReplica, running_postgres: PostgresProcess, emulator: EmulatorProcess
) -> None:
    """Postgres stops for seconds while four clients log: they are told to come again, the process lives
    on, and afterwards every acknowledged point is in the workspace once, in order.
    """
    server = start_replica("one")
    pid = server.pid
    experiment_id = Tracking(server.url).create_experiment(f"database {how}")
    loggers = [Logger(server, experiment_id) for _ in range(4)]
    for logger in loggers:
        logger.start()
    wait_until(lambda: all(logger.steps > 5 for logger in loggers), within=120, what="acknowledged points")
    (running_postgres.stop if how == "restart" else running_postgres.kill)()
    time.sleep(4)
    before = [logger.steps for logger in loggers]
    running_postgres.launch()
    wait_until(
        lambda: all(logger.steps > old + 5 for logger, old in zip(loggers, before, strict=True)),
        within=120,
        what="acknowledged points after the restart",
    )
    for logger in loggers:
        logger.finish()
    drain_all(server)
    assert server.pid == pid
    for logger in loggers:
        assert logger.unexpected == []
        assert logger.slowest_seconds < 45
        held = run_of(emulator, logger.run_id)
        assert steps_by_key(held.points_in_order) == {"loss": list(range(logger.steps))}


@pytest.mark.fault("16")
def test_a_stock_client_does_not_notice_a_restart(
    start_replica: StartReplica, running_postgres: PostgresProcess, emulator: EmulatorProcess
) -> None:
    """A training with a stock client goes through a restart of the database without an error of its own."""
    server = start_replica("one")
    acknowledged = server.data_dir / "acknowledged"
    process = start_client(
        client_python("mlflow3"),
        "steady.py",
        str(acknowledged),
        "200",
        folder=server.data_dir,
        MLFLOW_TRACKING_URI=server.url,
        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1",
        MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0",
    )
    try:
        wait_until(
            lambda: acknowledged.exists() and len(acknowledged.read_text().splitlines()) >= 50,
            within=120,
            what="50 acknowledged points",
        )
        running_postgres.stop()
        time.sleep(4)
        running_postgres.launch()
        assert process.wait(240) == 0, (server.data_dir / "client.log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    drain_all(server)
    run_id, *steps = acknowledged.read_text().split()
    held = run_of(emulator, run_id)
    assert steps_by_key(held.points_in_order) == {"loss": [int(step) for step in steps]}
    assert len(steps) == 200
    assert held.status == "FINISHED"


def test_while_the_database_is_away_answers_say_so(
    start_replica: StartReplica, running_postgres: PostgresProcess
) -> None:
    """Reads and writes are answered 429 with `Retry-After` within seconds; alive stays true, ready not."""
    server = start_replica("one")
    client = Tracking(server.url)
    run = client.create_run(client.create_experiment("away"), "away")
    running_postgres.stop()
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        body = {"run_id": run.run_id, "key": "k", "value": "v"}
        for answer in (
            http.post(f"{API}/runs/set-tag", json=body),
            http.get(f"{API}/runs/get", params={"run_id": run.run_id}),
            http.post(f"{API}/runs/create", json={"experiment_id": "0", "start_time": 1}),
        ):
            assert answer.status_code == 429, answer.text
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
            assert answer.elapsed.total_seconds() < 30
        assert http.get("/health/live").status_code == 200
        assert http.get("/health/ready").status_code == 503
        running_postgres.launch()
        wait_until(lambda: http.get("/health/ready").status_code == 200, within=120, what="ready again")


def test_when_the_database_has_no_connection_left(
    start_replica: StartReplica, running_postgres: PostgresProcess, database_url: str
) -> None:
    """Nobody gets a connection any more: clients are told to come again, and served when there is room."""
    name = database_url.rpartition("/")[2]
    running_postgres.execute("postgres", "CREATE ROLE crowded LOGIN")
    running_postgres.execute("postgres", f"ALTER DATABASE {name} OWNER TO crowded")
    server = start_replica("one", MLPROXY_DATABASE_URL=database_url.replace("postgres@", "crowded@"))
    client = Tracking(server.url)
    run = client.create_run(client.create_experiment("crowded"), "crowded")
    running_postgres.execute("postgres", "ALTER ROLE crowded CONNECTION LIMIT 0")
    running_postgres.execute(
        "postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'crowded'"
    )
    sessions = "SELECT 1 FROM pg_stat_activity WHERE usename = 'crowded'"
    wait_until(
        lambda: not running_postgres.execute("postgres", sessions), within=60, what="the end of all sessions"
    )
    body = {"run_id": run.run_id, "key": "k", "value": "v"}
    refused = httpx.post(f"{server.url}{API}/runs/set-tag", json=body, timeout=60, trust_env=False)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    running_postgres.execute("postgres", "ALTER ROLE crowded CONNECTION LIMIT -1")
    wait_until(lambda: client.try_post("runs/set-tag", body).is_success, within=60, what="a served client")


@pytest.mark.fault("16")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_commit_whose_answer_is_lost(
    kept: bool,
    start_replica: StartReplica,
    running_postgres: PostgresProcess,
    database_url: str,
    emulator: EmulatorProcess,
) -> None:
    """The connection breaks between COMMIT and its answer: the proxy finds out what became of it, and a
    client's create is answered with the one run that there is.
    """
    name = database_url.rpartition("/")[2]
    with TcpProxy(running_postgres.port) as wire:
        server = start_replica("one", MLPROXY_DATABASE_URL=running_postgres.url(name, port=wire.port))
        client = Tracking(server.url)
        experiment_id = client.create_experiment(f"lost commit {kept}")
        drain_all(server)
        if kept:
            wire.cut_once_after(b"COMMIT")
        else:
            wire.cut_once_before(b"COMMIT")
        run = client.create_run(experiment_id, "once")
        client.log_metric(run, "loss", 0.5, 1)
        client.end(run)
        assert wire.words_seen == 1
        drain_all(server)
        assert_delivered(emulator, run)
        assert len(runs_of(emulator, f"lost commit {kept}")) == 1


@pytest.mark.fault("16")
def test_a_silent_network_to_the_database_ends(
    start_replica: StartReplica,
    running_postgres: PostgresProcess,
    database_url: str,
    emulator: EmulatorProcess,
) -> None:
    """Connections that neither answer nor break, then break: the proxy goes on with new ones."""
    name = database_url.rpartition("/")[2]
    with TcpProxy(running_postgres.port) as wire:
        server = start_replica("one", MLPROXY_DATABASE_URL=running_postgres.url(name, port=wire.port))
        client = Tracking(server.url)
        experiment_id = client.create_experiment("silence")
        first = train(client, experiment_id, "before", steps=2)
        logger = Logger(server, experiment_id)
        logger.start()
        wait_until(lambda: logger.steps > 5, within=120, what="acknowledged points")
        wire.silence()
        time.sleep(3)
        wire.cut()
        time.sleep(1)
        wire.heal()
        old = logger.steps
        wait_until(lambda: logger.steps > old + 5, within=120, what="points after the silence")
        logger.finish()
        assert logger.unexpected == []
        drain_all(server)
        assert_delivered(emulator, first)
        held = run_of(emulator, logger.run_id)
        assert held.points_in_order == [point("loss", n, BASE_MS, n) for n in range(logger.steps)]
