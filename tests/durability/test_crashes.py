"""The proxy is killed at any moment, or told to stop under load: what it acknowledged is kept, once."""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import API, ARTIFACTS, BASE_MS
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, start_client
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import Point, point, run_of, runs_of, steps_by_key, wait_until

KILLS = 10
SEED = 20201112
WRITERS = 3


@dataclass(slots=True)
class Books:
    """What one writer sent and what of it was acknowledged, for one run."""

    run_id: str
    artifact_root: str
    sent: list[Point] = field(default_factory=list)
    acknowledged: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tag: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    has_ended: bool = False


class Writer(threading.Thread):
    """Logs to one run after another without pause; sends again whatever was not acknowledged."""

    def __init__(self, url: str, experiment_id: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._http = httpx.Client(base_url=url, timeout=60.0, trust_env=False)
        self._experiment_id = experiment_id
        self._stop_event = threading.Event()
        self.runs: list[Books] = []
        self.retries = 0
        self.refusals: list[str] = []

    def run(self) -> None:
        while not self._stop_event.is_set():
            self._log_one_run()

    def finish(self) -> None:
        """Let it end its run, then wait for it."""
        self._stop_event.set()
        self.join(180.0)
        assert not self.is_alive()

    def _log_one_run(self) -> None:
        created = self._insist(
            "POST",
            f"{API}/runs/create",
            json={
                "experiment_id": self._experiment_id,
                "start_time": BASE_MS,
                "run_name": f"{self.name} {len(self.runs)}",
            },
        )
        info = created.json()["run"]["info"]
        books = Books(info["run_id"], info["artifact_uri"].partition(":")[2].strip("/"))
        self.runs.append(books)
        for step in range(150):
            self._log_step(books, step)
            if self._stop_event.is_set():
                break
        body = {"run_id": books.run_id, "status": "FINISHED", "end_time": BASE_MS + 1}
        self._insist("POST", f"{API}/runs/update", json=body)
        books.has_ended = True

    def _log_step(self, books: Books, step: int) -> None:
        row = {"key": "loss", "value": step / 8, "timestamp": BASE_MS + step, "step": step}
        logged = point("loss", step, BASE_MS + step, step / 8)
        books.sent.append(logged)
        self._insist("POST", f"{API}/runs/log-metric", json={"run_id": books.run_id, **row})
        books.acknowledged.append(logged)
        if step % 10 == 0:
            param = {"key": f"p{step}", "value": str(step)}
            self._insist("POST", f"{API}/runs/log-parameter", json={"run_id": books.run_id, **param})
            books.params[param["key"]] = param["value"]
            tag = {"run_id": books.run_id, "key": "progress", "value": str(step)}
            self._insist("POST", f"{API}/runs/set-tag", json=tag)
            books.tag = str(step)
        if step % 25 == 0:
            content = f"{books.run_id} {step}".encode() * (1 if step % 50 else 5000)
            self._insist("PUT", f"{ARTIFACTS}/{books.artifact_root}/files/{step}.bin", content=content)
            books.files[f"files/{step}.bin"] = content

    def _insist(self, method: str, path: str, **content: object) -> httpx.Response:
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = self._http.request(method, path, **content)  # type: ignore[arg-type]
            except httpx.TransportError:
                assert time.monotonic() < deadline, f"{method} {path}: no answer for two minutes"
                self.retries += 1
                time.sleep(0.05)
                continue
            if not answer.is_success:
                self.refusals.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            assert answer.is_success, self.refusals[-1]
            return answer


@contextmanager
def logging_under_way(server: ServerProcess, experiment_id: str) -> Iterator[list[Writer]]:
    """Writers that log without pause; the caller ends them."""
    writers = [Writer(server.url, experiment_id, f"writer-{number}") for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    yield writers


def assert_all_delivered(emulator: EmulatorProcess, writers: list[Writer]) -> None:
    """Nothing acknowledged is missing, nothing is there twice, nothing is there that was never sent."""
    assert [writer.refusals for writer in writers] == [[]] * len(writers)
    for books in [books for writer in writers for books in writer.runs]:
        held = run_of(emulator, books.run_id)
        points = held.points
        assert set(points.values()) <= {1}
        assert set(books.acknowledged) <= set(points) <= set(books.sent)
        steps = steps_by_key(held.points_in_order).get("loss", [])
        assert steps == sorted(steps)
        assert held.params == books.params
        assert held.tags.get("progress") == books.tag
        sizes = {artifact["path"]: artifact["size"] for artifact in held.document["artifacts"]}
        assert sizes == {path: len(content) for path, content in books.files.items()}
        assert books.has_ended
        assert held.status == "FINISHED"
        assert held.ended_last


def new_experiment(server: ServerProcess, name: str) -> str:
    """Make an experiment; its id."""
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        return str(http.post(f"{API}/experiments/create", json={"name": name}).json()["experiment_id"])


@pytest.mark.fault("1")
def test_ten_kills_lose_and_double_nothing(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """`kill -9` at ten random moments while three clients log: all that was acknowledged arrives, once."""
    chance = random.Random(SEED)
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        experiment_id = new_experiment(server, "killed")
        with logging_under_way(server, experiment_id) as writers:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.05, 0.9))
                server.kill()
                server.launch()
            for writer in writers:
                writer.finish()
        assert sum(writer.retries for writer in writers) >= KILLS
        drain_all(server)
        assert_all_delivered(emulator, writers)
        # A create whose answer was lost was asked for again, and answered with the run that it had made.
        assert len(runs_of(emulator, "killed")) == sum(len(writer.runs) for writer in writers)


@pytest.mark.fault("1")
def test_a_stock_client_survives_a_kill(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """A stock client whose server is killed and restarted goes on by itself; every point arrives once."""
    python = client_python("mlflow3")
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        acknowledged = tmp_path / "acknowledged"
        process = start_client(
            python,
            "steady.py",
            str(acknowledged),
            "250",
            folder=tmp_path,
            MLFLOW_TRACKING_URI=server.url,
            MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1",
            MLFLOW_HTTP_REQUEST_BACKOFF_JITTER="0",
        )
        try:
            for lines in (50, 150):
                wait_until(
                    lambda lines=lines: (
                        acknowledged.exists() and len(acknowledged.read_text().splitlines()) >= lines
                    ),
                    within=120,
                    what=f"{lines} acknowledged points",
                )
                server.kill()
                server.launch()
            assert process.wait(240) == 0, (tmp_path / "client.log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        drain_all(server)
        run_id, *steps = acknowledged.read_text().split()
        held = run_of(emulator, run_id)
        assert steps_by_key(held.points_in_order) == {"loss": [int(step) for step in steps]}
        assert len(steps) == 250
        assert held.status == "FINISHED"


@pytest.mark.fault("17")
def test_sigterm_under_load_loses_nothing(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """SIGTERM while three clients log ends the proxy with 0 within 15 s; after a restart all arrives once."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        experiment_id = new_experiment(server, "terminated")
        with logging_under_way(server, experiment_id) as writers:
            for _ in range(2):
                time.sleep(1.0)
                started = time.monotonic()
                assert server.stop() == 0
                assert time.monotonic() - started < 15
                server.launch()
            for writer in writers:
                writer.finish()
        drain_all(server)
        assert_all_delivered(emulator, writers)


@pytest.mark.fault("1")
def test_a_kill_does_not_hold_up_delivery(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """What a killed server had claimed is delivered by the next one at once, not when the claim ends."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        emulator.add_fault(match="POST .*/runs/log-batch$", effect="delay", delay_seconds=3, times=1)
        experiment_id = new_experiment(server, "claimed")
        writer = Writer(server.url, experiment_id, "writer")
        writer.start()
        wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="a log-batch under way")
        server.kill()
        server.launch()
        writer.finish()
        # Less than the claim would last.
        drain_all(server, timeout=90)
        assert_all_delivered(emulator, [writer])
        with sqlite3.connect(f"file:{server.data_dir}/mlproxy.db?mode=ro", uri=True) as database:
            assert database.execute("SELECT count(*) FROM batches").fetchone() == (0,)
