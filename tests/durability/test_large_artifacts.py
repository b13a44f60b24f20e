"""Big files pass through in little memory, and do not hold back what is small.

`MLPROXY_TEST_LARGE=1` sends a file of 2 GB as well.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import ARTIFACTS, LoggedRun, Tracking, assert_delivered
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

MEBIBYTE = 1024 * 1024
MOST_MEMORY_BYTES = 64 * MEBIBYTE
SIZES = [80 * MEBIBYTE, *([2048 * MEBIBYTE] if os.environ.get("MLPROXY_TEST_LARGE") == "1" else [])]
BLOCK = os.urandom(MEBIBYTE)
UNTIL_TOLD_SECONDS = 300.0
AWKWARD_NAMES = [
    "with space.txt",
    "ünïcode/日本.txt",
    "hash#tag.txt",
    "100%.txt",
    "a%20b.txt",
    "plus+and&=.txt",
    "quote'\".txt",
]


class Memory:
    """The most memory that a process held, above what it held at the start."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/smaps_rollup")
        self._idle = self._bytes()
        self.peak_bytes = 0

    def look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._bytes() - self._idle)

    def _bytes(self) -> int:
        line = next(line for line in self._file.read_text().splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024


@contextmanager
def watched(server: ServerProcess) -> Iterator[Memory]:
    """Watch the server's memory from now on."""
    memory = Memory(server.pid)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.03):
            memory.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield memory
    ended.set()
    watcher.join()


@pytest.mark.parametrize("size", SIZES, ids=[f"{size // MEBIBYTE} MiB" for size in SIZES])
@pytest.mark.fault("18")
def test_memory_stays_flat(size: int, emulator: EmulatorProcess, tmp_path: Path) -> None:
    """A big file goes up, across and down again while the server holds at most 64 MiB more than when idle."""
    with deliver_to(emulator, tmp_path / "server") as server:
        client = Tracking(server.url)
        experiment = client.create_experiment(f"big {size}")
        run = client.create_run(experiment, "big")
        client.upload(run, "small.bin", os.urandom(MEBIBYTE))
        drain_all(server)  # what the first upload loads is not the big file's doing
        client.download(run, "small.bin")
        with watched(server) as memory:
            started = time.monotonic()
            run.files["model/big.bin"] = upload_blocks(server, run, "model/big.bin", size)
            uploaded = time.monotonic()
            client.end(run)
            drain_all(server, timeout=500)
            drained = time.monotonic()
            spool = server.data_dir / "spool"
            wait_until(
                lambda: not any(path.is_file() for path in spool.rglob("*")), within=60, what="an empty spool"
            )
            digest = download_digest(server, run, "model/big.bin")
            ended = time.monotonic()
        print(
            f"{size // MEBIBYTE} MiB: up {uploaded - started:.1f} s, across {drained - uploaded:.1f} s,"
            f" down {ended - drained:.1f} s; peak {memory.peak_bytes / MEBIBYTE:.1f} MiB over idle"
        )
        assert digest == run.files["model/big.bin"]
        assert_delivered(emulator, run)
        assert memory.peak_bytes <= MOST_MEMORY_BYTES


@pytest.mark.fault("18")
def test_metrics_overtake_a_big_upload(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Points of a run arrive while its big file is still on its way; its end waits for the file."""
    emulator.add_fault(match="PUT .*big.bin", effect="delay", delay_seconds=UNTIL_TOLD_SECONDS)
    run = client.create_run(experiment, "overtaking")
    run.files["big.bin"] = upload_blocks(server, run, "big.bin", 20 * MEBIBYTE)
    wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="the upload under way")
    for step in range(20):
        client.log_metric(run, "loss", step / 3, step)
    client.end(run)
    wait_until(lambda: len(run_of(emulator, run.run_id).points) == 20, within=120, what="points delivered")
    held = run_of(emulator, run.run_id)
    assert held.files == {"big.bin": None}
    assert held.status == "RUNNING"
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, run)


@pytest.mark.fault("1", "18")
def test_an_interrupted_upload_goes_on(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """The server is killed while it uploads a file; after the restart the file is there, whole, once."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("interrupted upload"), "interrupted upload")
        emulator.add_fault(match="PUT .*big.bin", effect="delay", delay_seconds=1.0, times=4)
        run.files["big.bin"] = upload_blocks(server, run, "big.bin", 40 * MEBIBYTE)
        client.end(run)
        wait_until(lambda: emulator.faults()[0]["hits"] >= 3, within=120, what="the upload under way")
        server.kill()
        server.launch()
        drain_all(server)
        assert_delivered(emulator, run)


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names(
    name: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A file keeps its name and its bytes, whatever characters the name has."""
    run = client.create_run(experiment, "names")
    content = name.encode() * 3
    client.upload(run, name, content)
    drain_all(server)
    assert_delivered(emulator, run)
    assert client.download(run, name) == content


def upload_blocks(server: ServerProcess, run: LoggedRun, path: str, size: int) -> str:
    """Upload `size` bytes as a stream; their SHA-256."""
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for number in range(size // MEBIBYTE):
            block = number.to_bytes(8) + BLOCK[8:]
            digest.update(block)
            yield block

    answer = httpx.put(
        f"{server.url}{ARTIFACTS}/{run.artifact_root}/{path}",
        content=blocks(),
        headers={"content-length": str(size)},
        timeout=300,
        trust_env=False,
    )
    assert answer.is_success, answer.text
    return digest.hexdigest()


def download_digest(server: ServerProcess, run: LoggedRun, path: str) -> str:
    """Download a file as a stream; its SHA-256."""
    digest = hashlib.sha256()
    url = f"{server.url}{ARTIFACTS}/{run.artifact_root}/{path}"
    with httpx.stream("GET", url, timeout=300, trust_env=False) as answer:
        assert answer.status_code == 200
        for block in answer.iter_bytes():
            digest.update(block)
    return digest.hexdigest()
