"""What was deleted long ago is removed for good, here and in the workspace, and nothing else is."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select

from server.database.schema import metadata
from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered
from tests.durability.tracking import train as train_long
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, runs_of

train = partial(train_long, steps=2)
REMOVED = "{} runs and {} experiments removed."


class Site:
    """A server on an empty database, its client, and a look into its tables."""

    def __init__(self, server: ServerProcess, url: str, emulator: EmulatorProcess, name: str) -> None:
        self._name = name
        self.server = server
        self.emulator = emulator
        self.client = Tracking(server.url)
        self._url = url

    def gc(self, *options: str) -> str:
        """`mlproxy gc`, of all that is deleted now."""
        done = self.server.cli("gc", "--older-than", "0s", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create_experiment(self, name: str) -> str:
        """An experiment that the other tests of the workspace have not made."""
        return self.client.create_experiment(self.name_of(name))

    def name_of(self, name: str) -> str:
        return f"{name}-{self._name}"

    def delete(self, run: LoggedRun) -> None:
        self.client.post("runs/delete", {"run_id": run.run_id})

    def finds(self, run: LoggedRun) -> bool:
        return (
            self.client.try_post("runs/set-tag", {"run_id": run.run_id, "key": "k", "value": "v"})
            .json()
            .get("error_code")
            != "RESOURCE_DOES_NOT_EXIST"
        )

    def counts(self) -> dict[str, int]:
        """How many rows each table has that is about runs."""
        engine = create_engine(self._url)
        with engine.connect() as connection:
            found = {
                name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for name, table in metadata.tables.items()
            }
        engine.dispose()
        quiet = {
            "facts",
            "accepted_creates",
            "commit_marks",
            "journal_entries",
            "barriers",
            "batches",
            "lanes",
        }
        return {name: count for name, count in found.items() if name not in quiet}


@pytest.fixture(params=["sqlite", "postgres"])
def site(
    request: pytest.FixtureRequest,
    emulator: EmulatorProcess,
    make_database: Callable[[str], str],
    nursery: Nursery,
    tmp_path: Path,
) -> Iterator[Site]:
    """A site on each database."""
    url = (
        make_database("postgres")
        if request.param == "postgres"
        else f"sqlite:///{tmp_path}/server/mlproxy.db"
    )
    settings = {"MLPROXY_DATABASE_URL": url} if request.param == "postgres" else {}
    with deliver_to(emulator, tmp_path / "server", nursery, **settings) as server:
        made = Site(server, url, emulator, tmp_path.name)
        yield made
        made.client.close()


def test_a_deleted_run_is_removed_here_and_in_the_workspace(site: Site) -> None:
    """Every row of it goes, its files go from storage, and the runs beside it keep all they have."""
    experiment_id = site.create_experiment("removed")
    kept = train(site.client, experiment_id, "kept")
    drain_all(site.server)
    before = site.counts()
    gone = train(site.client, experiment_id, "gone")
    site.client.log_points(gone, [("long", 0.5, step) for step in range(900)])
    drain_all(site.server)
    assert site.counts() != before
    last = train(site.client, experiment_id, "last")
    site.delete(gone)
    drain_all(site.server)
    assert REMOVED.format(1, 0).replace("removed", "would be removed") in site.gc("--dry-run")
    assert site.finds(gone)
    assert REMOVED.format(1, 0) in site.gc()
    drain_all(site.server)
    assert not site.finds(gone)
    held = run_of(site.emulator, gone.run_id)
    assert held.files == {}
    assert held.document["lifecycle_stage"] == "deleted"
    for run in (kept, last):
        assert_delivered(site.emulator, run)
        assert site.client.download(run, "notes.txt") == b"all well"
    two_runs = site.counts()
    assert {name: two_runs[name] for name in ("runs", "params", "points", "artifacts")} == {
        name: before[name] * 2 for name in ("runs", "params", "points", "artifacts")
    }
    assert REMOVED.format(0, 0) in site.gc()


def test_a_run_with_undelivered_entries_stays(site: Site) -> None:
    """What the workspace has not got is not thrown away, unless the operator says so."""
    experiment_id = site.create_experiment("undelivered")
    run = train(site.client, experiment_id, "waiting")
    drain_all(site.server)
    site.emulator.stop()
    site.client.set_tag(run, "late", "yes")
    site.delete(run)
    train(site.client, experiment_id, "last")
    told = site.gc()
    assert REMOVED.format(0, 0) in told
    assert f"run {run.run_id}" in told
    assert site.finds(run)
    assert "undelivered entries were discarded" in site.gc("--discard-undelivered")
    assert not site.finds(run)
    # It is removed there as well, once the workspace is back: the purge is journaled like any write.
    site.emulator.restart()
    drain_all(site.server)
    held = run_of(site.emulator, run.run_id)
    assert (held.files, held.document["lifecycle_stage"]) == ({}, "deleted")
    assert "late" not in held.tags


def test_a_kill_in_the_middle_is_finished_by_the_next_call(site: Site) -> None:
    """A run that is half removed can neither be restored nor stay."""
    experiment_id = site.create_experiment("killed")
    gone = [train(site.client, experiment_id, f"gone-{number}") for number in range(3)]
    train(site.client, experiment_id, "last")
    for run in gone:
        site.delete(run)
    drain_all(site.server)
    site.server.restart(MLPROXY_TEST_FAILPOINTS="gc.announced=kill@1")
    site.server.cli("gc", "--older-than", "0s")
    site.server.restart(MLPROXY_TEST_FAILPOINTS="")
    refused = site.client.try_post("runs/restore", {"run_id": gone[0].run_id})
    assert "being removed" in refused.json()["message"]
    assert REMOVED.format(3, 0) in site.gc("--older-than", "30d")
    drain_all(site.server)
    assert [run_of(site.emulator, run.run_id).files for run in gone] == [{}, {}, {}]
    assert not any(site.finds(run) for run in gone)


def test_a_deleted_experiment_goes_with_its_runs(site: Site) -> None:
    """First its runs, then itself; its name is free here, and goes on under another name there."""
    experiment_id = site.create_experiment("whole")
    run = train(site.client, experiment_id, "inside")
    train(site.client, site.create_experiment("other"), "last")
    site.client.post("experiments/delete", {"experiment_id": experiment_id})
    drain_all(site.server)
    assert REMOVED.format(1, 0) in site.gc()
    drain_all(site.server)
    assert run_of(site.emulator, run.run_id).document["lifecycle_stage"] == "deleted"
    assert REMOVED.format(0, 1) in site.gc()
    again = train(site.client, site.create_experiment("whole"), "again")
    drain_all(site.server)
    assert_delivered(site.emulator, again)
    assert [held.run_id for held in runs_of(site.emulator, f"{site.name_of('whole')}-2")] == [again.run_id]


def test_a_run_behind_a_registered_version_stays(site: Site) -> None:
    """The files of a registered model are never removed under it."""
    experiment_id = site.create_experiment("registered")
    run = train(site.client, experiment_id, "model")
    train(site.client, experiment_id, "last")
    site.client.post("registered-models/create", {"name": "kept"})
    source = f"mlflow-artifacts:/{run.artifact_root}/model"
    site.client.post("model-versions/create", {"name": "kept", "source": source})
    site.delete(run)
    drain_all(site.server)
    assert "registered model version" in site.gc()
    assert site.client.download(run, "model/weights.bin")


def test_a_run_whose_model_is_in_use_stays(site: Site) -> None:
    """A logged model that is not deleted keeps its run, unless the operator says it goes too."""
    experiment_id = site.create_experiment("models")
    run = train(site.client, experiment_id, "maker")
    body = {"experiment_id": experiment_id, "name": "net", "source_run_id": run.run_id}
    model = site.client.post("logged-models", body)["model"]["info"]
    train(site.client, experiment_id, "last")
    site.delete(run)
    drain_all(site.server)
    assert f"run {run.run_id}" in site.gc()
    assert site.client.get(f"logged-models/{model['model_id']}")
    assert REMOVED.format(1, 0) in site.gc("--with-models")
    assert site.counts()["logged_models"] == 0
