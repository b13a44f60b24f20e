"""A backup is made while everything goes on; restored later, it loses and doubles nothing."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from tests.durability.conftest import drain
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

BIG_FILE = bytes(range(256)) * 1024  # more than what is kept in the database
LOG_BATCH = "POST .*/runs/log-batch$"
EVERYTHING = ".*/(mlflow|history|artifact)/.*"


@dataclass(slots=True)
class Site:
    """Where servers of one kind run, one after the other, towards one workspace."""

    kind: str
    emulator: EmulatorProcess
    folder: Path
    make_database: Callable[[str], str]
    stack: ExitStack
    nursery: Nursery
    numbers: Iterator[int] = field(default_factory=count)

    def prepare(self, **settings: object) -> ServerProcess:
        """One more server, on an empty folder and an empty database; not running yet."""
        if self.kind == "postgres":
            settings = {"MLPROXY_DATABASE_URL": self.make_database("postgres"), **settings}
        server = ServerProcess.prepare(
            self.folder / f"server-{next(self.numbers)}",
            nursery=self.nursery,
            **{
                "MLPROXY_WORKSPACE": self.emulator.tracking_uri,
                "MLPROXY_CREDENTIAL": "managed-identity",
                "MLPROXY_SETTLE_SECONDS": 0.5,
                "MLPROXY_MARKER_SETTLE_SECONDS": 0.6,
                **self.emulator.environment(),
                **settings,
            },
        )
        return self.stack.enter_context(server)

    def start(self, **settings: object) -> tuple[ServerProcess, Tracking]:
        """One more server, and a client of it."""
        server = self.prepare(**settings)
        server.launch()
        return server, self.client(server)

    def client(self, server: ServerProcess) -> Tracking:
        connection = Tracking(server.url)
        self.stack.callback(connection.close)
        return connection

    def back_up(self, server: ServerProcess, name: str = "backup.tar") -> Path:
        """`mlproxy backup`, to a new file."""
        file = self.folder / name
        done = server.cli("backup", str(file))
        assert done.returncode == 0, done.stderr
        return file

    def restore(self, file: Path, **settings: object) -> tuple[ServerProcess, Tracking]:
        """`mlproxy restore` to a new place, and a server on it."""
        server = self.prepare(**settings)
        done = server.cli("restore", str(file))
        assert done.returncode == 0, done.stderr
        assert "as generation 2" in done.stdout
        server.launch()
        return server, self.client(server)


@pytest.fixture(params=["sqlite", "postgres"])
def site(
    request: pytest.FixtureRequest,
    emulator: EmulatorProcess,
    make_database: Callable[[str], str],
    nursery: Nursery,
    tmp_path: Path,
) -> Iterator[Site]:
    """A place for servers, on each database."""
    with ExitStack() as stack:
        yield Site(request.param, emulator, tmp_path, make_database, stack, nursery)


class Busy(threading.Thread):
    """Logs a point and a tag to one run without pause."""

    def __init__(self, client: Tracking, run: LoggedRun) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._run = run
        self._stop_event = threading.Event()

    def run(self) -> None:
        step = 0
        while not self._stop_event.is_set():
            self._client.log_metric(self._run, "loss", step / 8, step)
            self._client.set_tag(self._run, "progress", str(step))
            step += 1

    def finish(self) -> None:
        self._stop_event.set()
        self.join(120)
        assert not self.is_alive()


def assert_once(emulator: EmulatorProcess, run: LoggedRun) -> None:
    """The workspace has each acknowledged point once, in order, and the newest tags."""
    held = run_of(emulator, run.run_id)
    assert set(Counter(held.points_in_order).values()) <= {1}
    assert held.points_in_order == run.points
    assert held.params == run.params
    assert {key: held.tags.get(key) for key in run.tags} == run.tags


def versions_of(emulator: EmulatorProcess, name: str) -> list[str]:
    """The versions of a registered model in the workspace."""
    models = [model for model in emulator.registered_models() if model["name"] == name]
    return [version["version"] for model in models for version in model["versions"]]


def verified(server: ServerProcess, run: LoggedRun) -> bool:
    """Whether `mlproxy verify` finds the run the same in the workspace."""
    return server.cli("verify", run.run_id).returncode == 0


@pytest.mark.fault("17")
def test_yesterdays_backup_after_todays_delivery(site: Site) -> None:
    """Taken amid writes, a backlog, an open batch and files on their way, and restored when all of that and
    more was delivered: all is in the workspace once, nothing more is parked, and nothing newer is undone.
    """
    emulator = site.emulator
    server, client = site.start()
    experiment_id = client.create_experiment(f"yesterday {site.kind}")
    done = train(client, experiment_id, "done")
    parked = client.create_run(experiment_id, "parked")
    drain(server)
    emulator.add_fault(match=LOG_BATCH, effect="status", status=400, times=1)
    client.set_tag(parked, "refused", "by the workspace")
    wait_until(lambda: server.status()["parked"] == 1, within=120, what="a parked entry")
    busy = client.create_run(experiment_id, "busy")
    uncertain = client.create_run(experiment_id, "uncertain")
    drain(server)
    # From here on nothing is known to arrive; one batch does, and its answer is lost.
    emulator.add_fault(match=LOG_BATCH, effect="drop_answer", when="after", times=1)
    client.log_points(uncertain, [("loss", step / 4, step) for step in range(20)])
    wait_until(lambda: emulator.faults()[-1]["hits"], within=120, what="a lost answer")
    emulator.add_fault(match=EVERYTHING, effect="status", status=503)
    behind = train(client, experiment_id, "behind")
    client.post("registered-models/create", {"name": f"model-{site.kind}"})
    source = f"mlflow-artifacts:/{behind.artifact_root}/model"
    version = {"name": f"model-{site.kind}", "source": source, "run_id": behind.run_id}
    client.post("model-versions/create", version)
    writer = Busy(site.client(server), busy)
    writer.start()
    file = site.back_up(server)
    writer.finish()

    emulator.clear_faults()
    client.log_metric(busy, "only later", 1.0, 0)
    client.set_tag(busy, "progress", "newest")
    lost = train(client, experiment_id, "lost to the proxy")
    assert drain(server) == 1
    for run in (done, behind, lost):
        assert_delivered(emulator, run)
    server.kill()

    restored, client = site.restore(file)
    words = "generation 2 of the journal, from a backup"
    wait_until(lambda: words in restored.log_file.read_text(), within=60, what="the generation in the log")
    status = restored.status()
    assert status["generation"] == 2
    assert drain(restored) == 1
    assert restored.status()["being_read_back"] == 0
    for run in (done, behind, lost):
        assert_delivered(emulator, run)
    assert_once(emulator, busy)
    assert_once(emulator, uncertain)
    assert versions_of(emulator, f"model-{site.kind}") == ["1"]
    assert all(verified(restored, run) for run in (done, behind, uncertain))
    assert client.download(behind, "model/weights.bin") == BIG_FILE
    fresh = train(client, client.create_experiment(f"fresh {site.kind}"), "fresh")
    assert drain(restored) == 1
    assert_delivered(emulator, fresh)


@pytest.mark.fault("17")
def test_what_nobody_delivered_is_delivered(site: Site) -> None:
    """With the server lost right after the backup, all that it held arrives, tags and status included."""
    server, client = site.start()
    experiment_id = client.create_experiment(f"nobody {site.kind}")
    run = client.create_run(experiment_id, "half way")
    client.log_metric(run, "loss", 0.5, 0)
    client.set_tag(run, "progress", "old")
    drain(server)
    site.emulator.add_fault(match=EVERYTHING, effect="status", status=503)
    client.set_tag(run, "progress", "new")
    client.log_metric(run, "loss", 0.25, 1)
    client.upload(run, "weights.bin", BIG_FILE)
    client.end(run)
    other = train(client, experiment_id, "not begun")
    file = site.back_up(server)
    server.kill()
    site.emulator.clear_faults()
    restored, _ = site.restore(file)
    assert drain(restored) == 0
    assert_delivered(site.emulator, run)
    assert_delivered(site.emulator, other)
    assert verified(restored, run)


def test_what_cannot_be_told_is_parked_and_an_operator_decides(site: Site) -> None:
    """A tag that the workspace shows with another value, and nothing else tells which is newer: it is parked
    with both values, `retry` writes it and `drop` leaves it.
    """
    server, client = site.start()
    experiment_id = client.create_experiment(f"contested {site.kind}")
    runs = [client.create_run(experiment_id, name) for name in ("retried", "dropped")]
    for run in runs:
        client.set_tag(run, "stage", "before")
    drain(server)
    site.emulator.add_fault(match=EVERYTHING, effect="status", status=503)
    for run in runs:
        client.set_tag(run, "stage", "in the backup")
        client.set_tag(run, "other", "not contested")
    file = site.back_up(server)
    site.emulator.clear_faults()
    for run in runs:
        client.set_tag(run, "stage", "after the backup")
    drain(server)
    server.kill()
    restored, client = site.restore(file)
    assert drain(restored) == 2
    for run in runs:
        held = run_of(site.emulator, run.run_id).tags
        assert (held["stage"], held["other"]) == ("after the backup", "not contested")
    listed = restored.cli("parked", "list", "--json").stdout
    assert listed.count("uncertain_outcome") == 2
    assert "'after the backup' in the tag 'stage'" in listed
    assert restored.cli("parked", "retry", "--run", runs[0].run_id).returncode == 0
    assert restored.cli("parked", "drop", "--run", runs[1].run_id, "--reason", "kept").returncode == 0
    assert drain(restored) == 0
    stages = [run_of(site.emulator, run.run_id).tags["stage"] for run in runs]
    assert stages == ["in the backup", "after the backup"]


def test_a_run_made_with_a_marker_is_found_again(site: Site) -> None:
    """Where the workspace chooses run ids, a run made after the backup is mapped, and not made twice."""
    server, client = site.start()
    experiment_id = client.create_experiment(f"marked {site.kind}")
    site.emulator.add_fault(match=EVERYTHING, effect="status", status=503)
    run = train(client, experiment_id, "marked")
    file = site.back_up(server)
    site.emulator.clear_faults()
    refusal = site.emulator.add_fault(match="PATCH .*/runs/[^/]+$", effect="status", status=405)
    drain(server)
    server.kill()
    restored, client = site.restore(file)
    assert drain(restored) == 0
    assert refusal
    upstream_id = client.run_status(run.run_id)["upstream_run_id"]
    assert upstream_id != run.run_id
    assert_delivered(site.emulator, run, upstream_id=upstream_id)
    made = [row for row in site.emulator.runs() if row["experiment_name"] == f"marked {site.kind}"]
    assert len(made) == 1


def test_a_file_delivered_and_removed_during_the_backup_is_in_it(site: Site) -> None:
    """Between the snapshot and the copying, files are delivered and leave the spool: none is missing."""
    armed = site.folder / "failpoints"
    server, client = site.start(MLPROXY_TEST_FAILPOINTS=f"@{armed}")
    experiment_id = client.create_experiment(f"files {site.kind}")
    run = client.create_run(experiment_id, "files")
    drain(server)
    site.emulator.add_fault(match=EVERYTHING, effect="status", status=503)
    for number in range(5):
        client.upload(run, f"{number}.bin", BIG_FILE + bytes([number]))
    armed.write_text("backup.snapshot=hold")
    done: list[Path] = []
    backup = threading.Thread(target=lambda: done.append(site.back_up(server)))
    backup.start()
    spool = server.data_dir / "spool"
    wait_until((site.folder / "failpoints.held").exists, within=120, what="a backup with its snapshot")
    site.emulator.clear_faults()
    drain(server)
    wait_until(
        lambda: not any(path.is_file() for path in spool.glob("??/*")), within=60, what="an empty spool"
    )
    assert backup.is_alive()
    armed.write_text("")
    backup.join(120)
    assert done, "the backup was not made"
    server.kill()
    restored, client = site.restore(done[0])
    assert drain(restored) == 0
    assert_delivered(site.emulator, run)
    assert all(client.download(run, f"{n}.bin") == BIG_FILE + bytes([n]) for n in range(5))


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
def test_a_backup_is_one_private_file_and_overwrites_none(site: Site) -> None:
    """It is readable by its owner only, compressed when its name says so, and never takes another's place."""
    server, client = site.start(MLPROXY_WORKSPACE=None)
    run = train(client, client.create_experiment("private"), "private")
    file = site.back_up(server, "backup.tar.gz")
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    refused = server.cli("backup", str(file))
    assert refused.returncode == 1
    assert "exists" in refused.stderr
    assert file.read_bytes() == before
    assert [path.name for path in site.folder.glob("*backup*")] == ["backup.tar.gz"]
    _, client = site.restore(file, MLPROXY_WORKSPACE=None)
    assert client.download(run, "model/weights.bin") == BIG_FILE


@pytest.mark.parametrize(
    ("site", "point"), [("sqlite", "backup.pages"), ("postgres", "backup.part")], indirect=["site"]
)
def test_a_server_killed_while_it_is_backed_up_leaves_nothing_behind(point: str, site: Site) -> None:
    """No file appears under the backup's name; what was held is let go when the server starts again."""
    armed = site.folder / "failpoints"
    server, client = site.start(MLPROXY_WORKSPACE=None, MLPROXY_TEST_FAILPOINTS=f"@{armed}")
    run = train(client, client.create_experiment("killed"), "killed")
    armed.write_text(f"{point}=kill")
    broken = server.cli("backup", str(site.folder / "backup.tar"))
    assert broken.returncode != 0
    armed.write_text("")
    assert list(site.folder.glob("*backup*.tar")) == []
    assert list((server.data_dir / "spool").glob(".hold-*"))
    server.restart()
    assert list((server.data_dir / "spool").glob(".hold-*")) == []
    site.back_up(server)
    assert site.client(server).download(run, "model/weights.bin") == BIG_FILE


@pytest.mark.parametrize(
    ("site", "point"),
    [
        ("sqlite", "restore.moved_aside"),
        ("sqlite", "restore.spool_placed"),
        ("postgres", "restore.moved_aside"),
    ],
    indirect=["site"],
)
def test_a_restore_that_is_cut_off_is_known_and_can_be_repeated(point: str, site: Site) -> None:
    """Killed in the middle of the exchange, it keeps servers away until it is done again; all that was there
    before is still there, aside.
    """
    server, client = site.start(MLPROXY_WORKSPACE=None)
    held = train(client, client.create_experiment("held"), "held")
    file = site.back_up(server)
    later = train(client, client.create_experiment("later"), "later")
    server.stop()
    cut = server.cli("restore", str(file), "--replace", MLPROXY_TEST_FAILPOINTS=f"{point}=kill")
    assert cut.returncode == -signal.SIGKILL
    refused = server.cli("serve")
    assert refused.returncode == 1
    assert "mlproxy restore FILE --replace" in refused.stderr
    again = server.cli("restore", str(file), "--replace")
    assert again.returncode == 0, again.stderr
    server.launch()
    client = site.client(server)
    assert client.download(held, "model/weights.bin") == BIG_FILE
    assert client.try_post("runs/update", {"run_id": later.run_id}).status_code == 404
    aside = [path for path in server.data_dir.rglob("*replaced-*/**/*") if path.is_file()]
    assert sum(path.stat().st_size == len(BIG_FILE) for path in aside) >= 2
