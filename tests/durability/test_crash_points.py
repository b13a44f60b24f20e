"""`kill -9` at every named place, for every kind of operation: what was acknowledged arrives, once.

A place named `commit.…` is reached while the client waits for its answer: it gets none, and asks again once
the server is back, as stock clients do. Most other places are reached later, when the write was acknowledged
long ago and is on its way to the workspace.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.crashing import KILLED, CrashingServer
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerError
from tests.support.workspace import run_of, runs_of

pytestmark = pytest.mark.fault("1")

COMMITS = 12
KIBIBYTE = 1024
LARGE = os.urandom(9 * KIBIBYTE * KIBIBYTE)
SPOOLED = os.urandom(100 * KIBIBYTE)


@dataclass(slots=True)
class Scene:
    """A run that is delivered, and what is to happen to it."""

    run: LoggedRun
    experiment_id: str
    name: str

    def create_run(self, client: Tracking) -> None:
        self.run = client.create_run(self.experiment_id, self.name, made="again")

    def log_batch(self, client: Tracking) -> None:
        client.log_points(self.run, [("loss", step / 7, step) for step in range(20)])

    def set_tag(self, client: Tracking) -> None:
        client.set_tag(self.run, "tag", "new")

    def delete_tag(self, client: Tracking) -> None:
        answer = client.try_post("runs/delete-tag", {"run_id": self.run.run_id, "key": "tag"})
        assert answer.is_success or "No tag with name" in answer.text, answer.text
        del self.run.tags["tag"]

    def log_params(self, client: Tracking) -> None:
        client.log_params(self.run, {"p": "1", "q": "2"})

    def end(self, client: Tracking) -> None:
        client.end(self.run)

    def upload_small(self, client: Tracking) -> None:
        client.upload(self.run, "small.txt", b"a few bytes")

    def upload_spooled(self, client: Tracking) -> None:
        client.upload(self.run, "model/spooled.bin", SPOOLED)

    def upload_large(self, client: Tracking) -> None:
        client.upload(self.run, "model/large.bin", LARGE)

    def create_version(self, client: Tracking) -> None:
        source = f"mlflow-artifacts:/{self.run.artifact_root}/model"
        body = {"name": self.name, "source": source, "run_id": self.run.run_id}
        client.post("model-versions/create", body)

    def create_experiment(self, client: Tracking) -> None:
        answer = client.try_post("experiments/create", {"name": f"new {self.name}"})
        assert answer.is_success or "already exists" in answer.text, answer.text


OPERATIONS: dict[str, Callable[[Scene, Tracking], None]] = {
    "create run": Scene.create_run,
    "log batch": Scene.log_batch,
    "log params": Scene.log_params,
    "set tag": Scene.set_tag,
    "delete tag": Scene.delete_tag,
    "end run": Scene.end,
    "small file": Scene.upload_small,
    "spooled file": Scene.upload_spooled,
    "large file": Scene.upload_large,
    "model version": Scene.create_version,
    "experiment": Scene.create_experiment,
}
BEFORE_THE_ANSWER = ("commit.before", "commit.after")
ON_THE_WAY = ("send.before", "send.after")
ELSEWHERE = [
    ("spool.flushed", "spooled file"),
    ("spool.flushed", "large file"),
    ("run.way_chosen", "create run"),
    ("run.made", "create run"),
    ("experiment.made", "experiment"),
    ("version.made", "model version"),
    ("upload.registered", "small file"),
    ("upload.registered", "large file"),
    ("upload.committed", "small file"),
    ("upload.committed", "spooled file"),
    ("upload.committed", "large file"),
    ("upload.block_sent", "large file"),
    ("upload.block_sent@2", "large file"),
    ("upload.blocks_sent", "large file"),
    ("upload.recorded", "small file"),
    ("upload.recorded", "spooled file"),
    ("upload.recorded", "large file"),
]
CASES = [
    *[(place, operation) for place in (*BEFORE_THE_ANSWER, *ON_THE_WAY) for operation in OPERATIONS],
    *ELSEWHERE,
]
# On Postgres the same code runs; these are where its commits, leases and statements differ.
POSTGRES_CASES = [
    *[
        (place, operation)
        for place in (*BEFORE_THE_ANSWER, *ON_THE_WAY)
        for operation in ("create run", "log batch", "spooled file", "model version")
    ],
    ("run.made", "create run"),
    ("version.made", "model version"),
    ("upload.recorded", "spooled file"),
]
ALL_CASES = [
    *[("sqlite", place, operation) for place, operation in CASES],
    *[("postgres", place, operation) for place, operation in POSTGRES_CASES],
]


@dataclass(slots=True)
class Stage:
    """One server that lives through all the deaths on its kind of database, and the scenes set for them."""

    crashing: CrashingServer
    scenes: dict[tuple[str, str], Scene]


@pytest.fixture(scope="module")
def stage_of(
    module_emulator: EmulatorProcess,
    nursery: Nursery,
    make_database: MakeDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Stage]]:
    """The stage on a kind of database, its server alive."""
    stages: dict[str, Stage] = {}

    def stage_of_kind(kind: str) -> Stage:
        if kind not in stages:
            url = None if kind == "sqlite" else make_database(kind)
            folder = tmp_path_factory.mktemp(kind)
            crashing = start_crashing(module_emulator, nursery, folder, database_url=url)
            names = [case[1:] for case in ALL_CASES if case[0] == kind]
            scenes = {
                name: set_scene(crashing, re.sub(r"\W", "-", " ".join((*name, kind)))) for name in names
            }
            drain_all(crashing.server)
            stages[kind] = Stage(crashing, scenes)
        if not stages[kind].crashing.server.is_running:
            stages[kind].crashing.revive()
        return stages[kind]

    yield stage_of_kind
    for stage in stages.values():
        if stage.crashing.server.is_running:
            stage.crashing.server.kill()


@pytest.fixture
def crashing(stage_of: Callable[[str], Stage]) -> CrashingServer:
    """The server on SQLite."""
    return stage_of("sqlite").crashing


def start_crashing(
    emulator: EmulatorProcess,
    nursery: Nursery,
    folder: Path,
    *,
    database_url: str | None = None,
    **settings: object,
) -> CrashingServer:
    """A server whose failpoints can be armed while it runs."""
    script = folder / "failpoints"
    server = deliver_to(
        emulator,
        folder / "data",
        nursery,
        **{
            "MLPROXY_DATABASE_URL": database_url,
            "MLPROXY_TEST_FAILPOINTS": f"@{script}",
            "MLPROXY_SETTLE_SECONDS": 0.2,
            "MLPROXY_MARKER_SETTLE_SECONDS": 0.3,
            **settings,
        },
    )
    return CrashingServer(server, script, database_url)


def set_scene(crashing: CrashingServer, name: str) -> Scene:
    """A run with a tag and a model in it, and a registered model."""
    client = crashing.client
    experiment_id = client.create_experiment(name)
    scene = Scene(client.create_run(experiment_id, name, tag="old"), experiment_id, name)
    client.upload(scene.run, "model/MLmodel", b"flavors: {}")
    client.post("registered-models/create", {"name": name})
    return scene


def perform(crashing: CrashingServer, scene: Scene, operation: str) -> None:
    """One operation, once more if the server dies under it."""
    crashing.survive(lambda client: OPERATIONS[operation](scene, client))


def assert_all_there(emulator: EmulatorProcess, crashing: CrashingServer, scene: Scene, before: str) -> None:
    """The workspace has what was acknowledged: the runs, the versions, the experiment, each once."""
    drain_all(crashing.server)
    assert_delivered(emulator, scene.run)
    assert run_of(emulator, before).status != "SCHEDULED"
    experiments = [experiment for experiment in emulator.experiments() if scene.name in experiment["name"]]
    names = [experiment["name"] for experiment in experiments]
    assert names == list(dict.fromkeys(names))
    # A create whose answer was lost may have made a run that no client knows.
    assert len({before, scene.run.run_id}) <= experiments[0]["runs"] <= 3
    known = crashing.client.get("model-versions/search", filter=f"name = '{scene.name}'")
    (model,) = (model for model in emulator.registered_models() if model["name"] == scene.name)
    assert len(model["versions"]) == len(known.get("model_versions", []))


@pytest.mark.parametrize(
    ("kind", "place", "operation"), ALL_CASES, ids=[": ".join(case) for case in ALL_CASES]
)
def test_killed_at(
    kind: str,
    place: str,
    operation: str,
    stage_of: Callable[[str], Stage],
    emulator: EmulatorProcess,
) -> None:
    """The process dies exactly there, and comes back: nothing acknowledged is missing, nothing is doubled."""
    stage = stage_of(kind)
    crashing, scene = stage.crashing, stage.scenes[place, operation]
    before = scene.run.run_id
    place, _, count = place.partition("@")
    crashing.arm(f"{place}=kill@{count or 1}")
    lives = crashing.lives
    perform(crashing, scene, operation)
    if crashing.lives == lives:
        crashing.die_while_draining()
        crashing.revive()
    assert_all_there(emulator, crashing, scene, before)
    if operation == "model version":
        assert_version_made(emulator, scene)
    if operation == "experiment":
        names = [experiment["name"] for experiment in emulator.experiments()]
        assert names.count(f"new {scene.name}") == 1


def assert_version_made(emulator: EmulatorProcess, scene: Scene) -> None:
    """The version that was acknowledged is there."""
    (model,) = (model for model in emulator.registered_models() if model["name"] == scene.name)
    source = f"azureml://artifacts/ExperimentRun/dcid.{scene.run.run_id}/model"
    assert {version["source"] for version in model["versions"]} == {source}


def test_killed_between_making_a_marked_run_and_knowing_its_id(
    crashing: CrashingServer, emulator: EmulatorProcess
) -> None:
    """A run that the workspace named itself, made when the process died, is found and not made twice."""
    emulator.settings(history_patch_status=405)
    experiment_id = crashing.client.create_experiment("marked and killed")
    crashing.arm("run.made_with_marker=kill")
    run = crashing.client.create_run(experiment_id, "marked")
    crashing.client.log_metric(run, "loss", 0.5, 0)
    crashing.die_while_draining()
    crashing.revive()
    drain_all(crashing.server)
    (held,) = runs_of(emulator, "marked and killed")
    assert_delivered(emulator, run, upstream_id=held.run_id)


def test_killed_while_reading_back(crashing: CrashingServer, emulator: EmulatorProcess) -> None:
    """A death in the middle of finding out what became of a batch changes nothing about the batch."""
    scene = set_scene(crashing, "reading-back")
    drain_all(crashing.server)
    for step, when in enumerate(("before", "after")):
        emulator.add_fault(match="POST .*/runs/log-batch$", effect="drop_answer", when=when, times=1)
        crashing.arm("uncertain.read=kill")
        crashing.client.log_metric(scene.run, "loss", step / 3, step)
        crashing.die_while_draining()
        crashing.revive()
        drain_all(crashing.server)
    assert_delivered(emulator, scene.run)


def test_killed_at_one_commit_after_the_other(crashing: CrashingServer, emulator: EmulatorProcess) -> None:
    """Runs are logged while the server dies at its first commit, its second, …: all of them arrive, once."""
    experiment_id = crashing.client.create_experiment("commit-by-commit")
    runs = []
    for number in range(1, COMMITS + 1):
        scene = Scene(LoggedRun("", "", ""), experiment_id, f"killed at commit {number}")
        lives = crashing.lives
        crashing.arm(f"commit.{'before' if number % 2 else 'after'}=kill@{number}")
        for operation in ("create run", "log batch", "set tag", "small file", "end run"):
            perform(crashing, scene, operation)
        if crashing.lives == lives:
            crashing.die_while_draining()
            crashing.revive()
        runs.append(scene.run)
    drain_all(crashing.server)
    for run in runs:
        assert_delivered(emulator, run)


@pytest.mark.parametrize("place", BEFORE_THE_ANSWER)
def test_killed_while_starting(place: str, crashing: CrashingServer, emulator: EmulatorProcess) -> None:
    """After deaths at the first and second commit of a start, the next start delivers what was waiting."""
    scene = set_scene(crashing, f"starting-{place}".replace(".", "-"))
    drain_all(crashing.server)
    emulator.stop()
    Scene.log_batch(scene, crashing.client)
    crashing.server.kill()
    for number in (1, 2):
        crashing.arm(f"{place}=kill@{number}")
        with pytest.raises(ServerError, match=f"exit {KILLED}"):
            crashing.server.launch()
    emulator.restart()
    crashing.revive()
    drain_all(crashing.server)
    assert_delivered(emulator, scene.run)
