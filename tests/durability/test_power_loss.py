"""The power fails right after any answer: what was acknowledged is there, and all of it can be used.

A real server's system calls are watched. For each answer that it gave, the test makes the disk as a power
failure at that very moment would have left it, and looks at what is on it.
"""

import copy
import hashlib
import os
import random
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from server.journal.blocks import is_whole
from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered, train
from tests.support.disk_image import Chooser, Disk, nothing, torn
from tests.support.disk_trace import Answered, Note, Traced
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until

pytestmark = pytest.mark.fault("2")
OPERATIONS = 40
POINTS = 100
SEED = 19690720
OK = b"HTTP/1.1 200"
# A page of the log is 4 KiB, and SQLite begins it anew after a thousand: this much makes it do so.
LONG_PARAM = "x" * 6000


@dataclass(slots=True)
class History:
    """What a server did, and what its client had been told after each of its answers."""

    disk: Disk
    """The data folder when watching began."""
    notes: list[Note] = field(default_factory=list)
    told: list[LoggedRun] = field(default_factory=list)

    def moments(self) -> Iterator[tuple[LoggedRun, Disk]]:
        """Each answer: what was acknowledged by then, and the disk."""
        disk = copy.deepcopy(self.disk)
        answers = iter(self.told)
        for note in self.notes:
            if isinstance(note, Answered) and note.start.startswith(OK):
                if (told := next(answers, None)) is None:
                    return
                yield told, disk
            disk.follow(note)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, module_emulator: EmulatorProcess) -> History:
    """A run logged to a server that is watched. Its workspace is away all the time."""
    if not Traced.is_possible():
        if os.environ.get("MLPROXY_TEST_REQUIRE_ALL"):
            raise AssertionError("this machine does not let a process trace its child")
        pytest.skip("this machine does not let a process trace its child")
    folder = tmp_path_factory.mktemp("watched")
    module_emulator.stop()
    server = ServerProcess.prepare(
        folder / "data",
        MLPROXY_WORKSPACE=module_emulator.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        **module_emulator.environment(),
    )
    command = [sys.executable, "-m", "server", "serve"]
    with Traced(command, folder / "notes", cwd=server.data_dir, env=server.environment()) as traced:
        wait_until(lambda: is_healthy(server.url), within=120, what="the server's health")
        history = History(traced.begin(lambda: Disk(server.data_dir)))
        history.told = log_a_run(Tracking(server.url))
        history.notes = traced.end()
    module_emulator.restart()
    return history


def is_healthy(url: str) -> bool:
    """Whether the server answers."""
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def log_a_run(client: Tracking) -> list[LoggedRun]:
    """Log a bit of all there is; the run as it was acknowledged after each answer."""
    experiment = client.create_experiment("power")
    run = client.create_run(experiment, "power")
    told = [LoggedRun("", "", ""), copy.deepcopy(run)]
    for number in range(OPERATIONS):
        first = number * POINTS
        client.log_points(run, [("loss", step / 7, step) for step in range(first, first + POINTS)])
        told.append(copy.deepcopy(run))
        client.log_params(run, {f"p{number}": LONG_PARAM})
        told.append(copy.deepcopy(run))
        if number % 8 == 0:
            client.upload(run, f"small{number}.txt", f"small {number}".encode())
            told.append(copy.deepcopy(run))
            client.upload(run, f"large{number}.bin", number.to_bytes(2) * 50_000)
            told.append(copy.deepcopy(run))
    client.end(run)
    told.append(copy.deepcopy(run))
    return told


@pytest.mark.parametrize("what", ["nothing", "some of it"])
def test_after_every_answer(what: str, history: History, tmp_path: Path) -> None:
    """Whatever of the unflushed reached the disk: the database is whole and has all that was acknowledged."""
    choose: Chooser = nothing if what == "nothing" else torn(random.Random(SEED))
    moments = 0
    for told, disk in history.moments():
        image = tmp_path / str(moments)
        disk.write_to(image, choose)
        assert_holds(image, told)
        moments += 1
        for file in image.rglob("*"):
            if file.is_file():
                file.unlink()
    assert moments == len(history.told) > 2 * OPERATIONS


def assert_holds(image: Path, told: LoggedRun) -> None:
    """The database can be opened, is sound, and has what was acknowledged, to be read and to be delivered."""
    with sqlite3.connect(image / "mlproxy.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        held = {
            table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("points", "params", "artifacts")
        }
        blocks = database.execute("SELECT lane_id, first_position, last_position, points FROM journal_blocks")
        journaled = 0
        for lane_id, first, last, packed in blocks:
            assert is_whole(lane_id, first, packed)
            journaled += last - first + 1
        assert held["points"] == journaled == len(told.points)
        assert held["params"] == len(told.params)
        assert held["artifacts"] == len(told.files)
        for path, content, spool_name in database.execute("SELECT path, content, spool_name FROM artifacts"):
            if content is None:
                content = (image / "spool" / spool_name[:2] / spool_name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == told.files[path]
        statuses = database.execute("SELECT status FROM runs").fetchall()
        assert statuses == ([(told.status,)] if told.run_id else [])


def test_a_server_goes_on_after_it(
    history: History, emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A server that starts on such a disk delivers all that was acknowledged, once, and takes new writes."""
    wanted = len(history.told) * 2 // 3
    told, disk = next(moment for number, moment in enumerate(history.moments()) if number == wanted)
    disk.write_to(tmp_path / "image", torn(random.Random(SEED)))
    with deliver_to(emulator, tmp_path / "image", nursery) as server:
        client = Tracking(server.url)
        fresh = train(client, client.create_experiment("after the failure"), "fresh", steps=2)
        drain_all(server)
        assert_delivered(emulator, told)
        assert_delivered(emulator, fresh)
