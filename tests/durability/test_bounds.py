"""Full backlogs, spools and disks: nothing acknowledged is lost, clients are told, and it passes."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import ARTIFACTS, LoggedRun, Tracking, assert_delivered
from tests.support.disks import small_disk
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, start_client
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, runs_of, wait_until

LIMIT = 1024 * 1024
VALUE = "x" * 900
TAGS = 30
BATCHES = 42
SMALL_DISK_BYTES = 48 * 1024 * 1024


@contextlib.contextmanager
def client_of(server: ServerProcess) -> Iterator[Tracking]:
    """A connection to the server."""
    client = Tracking(server.url)
    yield client
    client.close()


def set_tag(client: Tracking, run: LoggedRun, key: str, value: str) -> httpx.Response:
    """Set a tag, if the server takes it; the books have it only then."""
    answer = client.try_post("runs/set-tag", {"run_id": run.run_id, "key": key, "value": value})
    if answer.is_success:
        run.tags[key] = value
    return answer


def set_tags(client: Tracking, run: LoggedRun, value: str) -> httpx.Response:
    """Set many tags in one call, if the server takes them."""
    tags = {f"t{number}": value for number in range(TAGS)}
    listed = [{"key": key, "value": value} for key, value in tags.items()]
    answer = client.try_post("runs/log-batch", {"run_id": run.run_id, "tags": listed})
    if answer.is_success:
        run.tags |= tags
    return answer


def assert_told_to_come_again(answer: httpx.Response) -> None:
    """429 with a time, in MLflow's error body."""
    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error_code"] == "RESOURCE_EXHAUSTED"


def metric(server: ServerProcess, name: str) -> float:
    """One figure for Prometheus; 0 before it was ever counted."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)


# --- the backlog ----------------------------------------------------------------------------


@pytest.mark.fault("14")
def test_a_full_backlog_loses_nothing(emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path) -> None:
    """429 from the soft limit on, the end of the run is taken, and all that was taken arrives."""
    with (
        deliver_to(
            emulator, tmp_path / "server", nursery, MLPROXY_WORKSPACE=None, MLPROXY_MAX_BACKLOG_BYTES=LIMIT
        ) as server,
        client_of(server) as client,
    ):
        run = client.create_run(client.create_experiment("full"), "full")
        number = 0
        while (answer := set_tags(client, run, f"{number}{VALUE}")).is_success:
            number += 1
        assert_told_to_come_again(answer)
        assert metric(server, 'mlproxy_backpressure_total{code="429"}') == 1
        assert "SOFT FULL: clients are told to come again (429)" in server.cli("status").stdout
        client.end(run)
        server.restart(MLPROXY_WORKSPACE=emulator.tracking_uri)
        drain_all(server)
        assert_delivered(emulator, run)
        assert metric(server, "mlproxy_pending_bytes") == 0
        assert set_tag(client, run, "after", "yes").is_success


@pytest.mark.fault("14")
def test_a_stock_client_rides_through_a_full_backlog(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """MLflow's own retries carry a client over the time in which the workspace takes nothing."""
    python = client_python("mlflow3")
    emulator.add_fault(match="POST .*/runs/log-batch$", effect="status", status=503)
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_MAX_BACKLOG_BYTES=LIMIT) as server:
        process = start_client(
            python,
            "patient.py",
            "patience",
            str(BATCHES),
            folder=tmp_path / "client",
            MLFLOW_TRACKING_URI=server.url,
            MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="1",
        )
        try:
            wait_until(
                lambda: metric(server, 'mlproxy_backpressure_total{code="429"}') >= 1,
                within=180,
                what="a client that is told to come again",
            )
            emulator.clear_faults()
            assert process.wait(240) == 0, (tmp_path / "client" / "client.log").read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        drain_all(server)
    (held,) = runs_of(emulator, "patience")
    assert [step for _, step, _, _ in held.points_in_order] == list(range(BATCHES))
    assert {held.tags[f"t{number}"][:6] for number in range(TAGS)} == {f"{BATCHES - 1:06}"}
    assert (held.status, held.ended_last) == ("FINISHED", True)


# --- the spool ------------------------------------------------------------------------------


@pytest.mark.fault("14")
def test_a_full_spool_tells_uploads_to_come_again(nursery: Nursery, tmp_path: Path) -> None:
    """From 85 % on 429, from 95 % on 507, and 507 at once for what never fits; small files go on."""
    with (
        ServerProcess.start(tmp_path / "server", nursery=nursery, MLPROXY_MAX_SPOOL_BYTES=LIMIT) as server,
        client_of(server) as client,
    ):
        run = client.create_run(client.create_experiment("spool"), "spool")

        def upload(path: str, size: int) -> httpx.Response:
            url = f"{server.url}{ARTIFACTS}/{run.artifact_root}/{path}"
            return httpx.put(url, content=b"x" * size, trust_env=False)

        assert upload("never", LIMIT + 1).status_code == 507
        assert upload("a", LIMIT * 80 // 100).status_code == 200
        assert_told_to_come_again(upload("would fit later", LIMIT // 2))
        assert upload("b", LIMIT * 10 // 100).status_code == 200
        assert_told_to_come_again(upload("c", 70_000))
        assert upload("small", 60_000).status_code == 200
        assert "SOFT FULL" in server.cli("status").stdout
        assert metric(server, 'mlproxy_backpressure_total{code="507"}') == 1


@pytest.mark.fault("3")
@pytest.mark.parametrize(("error", "status"), [("ENOSPC", 507), ("EIO", 429)])
def test_an_upload_that_the_disk_does_not_take(
    nursery: Nursery, tmp_path: Path, error: str, status: int
) -> None:
    """At the spool: refused, nothing of it stays, and the next upload is taken."""
    script = tmp_path / "failpoints"
    script.write_text(f"spool.write=error:{error}")
    with (
        ServerProcess.start(
            tmp_path / "server", nursery=nursery, MLPROXY_TEST_FAILPOINTS=f"@{script}"
        ) as server,
        client_of(server) as client,
    ):
        run = client.create_run(client.create_experiment("spool"), "spool")
        url = f"{server.url}{ARTIFACTS}/{run.artifact_root}/f"
        answer = httpx.put(url, content=b"x" * 100_000, trust_env=False)
        assert answer.status_code == status, answer.text
        assert [path for path in (server.data_dir / "spool").rglob("*") if path.is_file()] == []
        script.write_text("")
        client.upload(run, "f", b"y" * 100_000)
        assert client.download(run, "f") == b"y" * 100_000


# --- the disk -------------------------------------------------------------------------------


def readiness(server: ServerProcess) -> httpx.Response:
    """`/health/ready`."""
    return httpx.get(f"{server.url}/health/ready", trust_env=False)


def assert_kept(client: Tracking, run: LoggedRun) -> None:
    """The server shows exactly what was acknowledged."""
    data = client.get("runs/get", run_id=run.run_id)["run"]["data"]
    shown = {tag["key"]: tag["value"] for tag in data["tags"] if not tag["key"].startswith("mlflow.")}
    assert shown == run.tags


@pytest.mark.fault("3")
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_commit_that_the_disk_does_not_take(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path, error: str
) -> None:
    """At the commit: not acknowledged and not kept; /health/ready says so; it recovers by itself."""
    script = tmp_path / "failpoints"
    script.write_text("")
    with (
        deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_TEST_FAILPOINTS=f"@{script}") as server,
        client_of(server) as client,
    ):
        run = client.create_run(client.create_experiment(f"commit {error}"), "commit")
        assert set_tag(client, run, "before", "1").is_success
        script.write_text(f"commit.before=error:{error}")
        for number in range(5):
            assert_told_to_come_again(set_tag(client, run, f"lost {number}", "1"))
        assert_told_to_come_again(client.try_post("experiments/create", {"name": "lost"}))
        answer = readiness(server)
        assert answer.status_code == 503
        assert "disk" in answer.json()["problems"]["database"]
        assert_kept(client, run)
        script.write_text("")
        assert "database" not in readiness(server).json()["problems"]
        assert set_tag(client, run, "after", "1").is_success
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    with small_disk(tmp_path / "disk", SMALL_DISK_BYTES) as folder:
        yield folder


def fill_up(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


@pytest.mark.fault("3")
def test_a_full_disk_passes(emulator: EmulatorProcess, nursery: Nursery, tiny_disk: Path) -> None:
    """With no byte left nothing is acknowledged; when there is room again, all goes on."""
    with deliver_to(emulator, tiny_disk / "server", nursery) as server, client_of(server) as client:
        run = client.create_run(client.create_experiment("small disk"), "small disk")
        assert set_tag(client, run, "before", VALUE).is_success
        ballast = fill_up(tiny_disk)
        refused = 0
        for number in range(300):
            answer = set_tag(client, run, f"t{number}", VALUE)
            if not answer.is_success:
                assert_told_to_come_again(answer)
                refused += 1
            if refused == 10:
                break
        assert refused == 10
        assert_kept(client, run)
        assert readiness(server).status_code == 503
        ballast.unlink()
        wait_until(
            lambda: set_tag(client, run, "after", "1").is_success, within=120, what="a write is taken again"
        )
        assert_kept(client, run)
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)


@pytest.mark.fault("3")
def test_a_disk_that_takes_no_write_passes(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """An I/O error of the file system itself: no file of the server may grow, then all of them may again."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server, client_of(server) as client:
        run = client.create_run(client.create_experiment("no write"), "no write")
        assert set_tag(client, run, "before", "1").is_success
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, hard))
        for number in range(10):
            assert_told_to_come_again(set_tag(client, run, f"lost {number}", "1"))
        assert_kept(client, run)
        assert readiness(server).status_code == 503
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert set_tag(client, run, "after", "1").is_success
        assert_kept(client, run)
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)


@pytest.mark.fault("3")
def test_what_a_broken_flush_left_is_not_believed(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """Killed while its disk takes nothing, the server comes back with exactly what it had acknowledged."""
    with deliver_to(emulator, tmp_path / "server", nursery) as server, client_of(server) as client:
        run = client.create_run(client.create_experiment("killed"), "killed")
        for number in range(20):
            assert set_tag(client, run, f"t{number}", "1").is_success
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, hard))
        assert_told_to_come_again(set_tag(client, run, "lost", "1"))
        server.kill()
        server.launch()
        assert_kept(client, run)
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)
        assert run_of(emulator, run.run_id).status == "FINISHED"
