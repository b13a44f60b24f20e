"""Journals written by earlier versions are brought up to date and delivered, completely and once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.database.migration import HEAD
from tests.compatibility.kept import JOURNALS, KeptJournal
from tests.durability.conftest import drain
from tests.durability.crashing import end_leases
from tests.durability.tracking import Tracking, assert_delivered, train
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerError, ServerProcess
from tests.support.workspace import PARENT_TAG, run_of, runs_of

pytestmark = pytest.mark.fault("17")
ALL = [KeptJournal(folder) for folder in sorted(JOURNALS.iterdir())]
KINDS = ("sqlite", "postgres")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[EmulatorProcess]:
    """A workspace for one journal alone."""
    with EmulatorProcess.start(tmp_path / "emulator") as running:
        yield running


@pytest.fixture
def restored(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    make_database: MakeDatabase,
    nursery: Nursery,
    workspace: EmulatorProcess,
) -> tuple[KeptJournal, ServerProcess, EmulatorProcess]:
    """A journal of an earlier version, not yet brought up to date, and a server that is to deliver it."""
    journal, kind = request.param
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    url = f"sqlite:///{data_dir / 'mlproxy.db'}" if kind == "sqlite" else make_database(kind)
    journal.restore(url, data_dir, workspace)
    if kind == "postgres":
        end_leases(url)
    server = ServerProcess.prepare(
        data_dir,
        nursery=nursery,
        MLPROXY_DATABASE_URL=None if kind == "sqlite" else url,
        MLPROXY_WORKSPACE=workspace.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        MLPROXY_SETTLE_SECONDS=0.3,
        MLPROXY_MARKER_SETTLE_SECONDS=0.3,
        **workspace.environment(),
    )
    return journal, server, workspace


every_journal = pytest.mark.parametrize(
    "restored",
    [(journal, kind) for journal in ALL for kind in KINDS],
    ids=[f"{journal.folder.name} {kind}" for journal in ALL for kind in KINDS],
    indirect=True,
)


@every_journal
def test_it_is_migrated_and_delivered(
    restored: tuple[KeptJournal, ServerProcess, EmulatorProcess],
) -> None:
    """`serve` refuses it and names the command; after the command, everything acknowledged arrives, once."""
    journal, server, emulator = restored
    if journal.revision != HEAD:
        with pytest.raises(ServerError, match="mlproxy migrate"):
            server.launch()
    migrated = server.cli("migrate")
    assert (migrated.returncode, migrated.stdout) == (0, f"The database is at schema {HEAD}.\n"), migrated
    with server:
        server.launch()
        assert drain(server) == journal.acknowledged.get("parked", 0)
        for run in journal.runs:
            assert_delivered(emulator, run)
        assert_children(journal, emulator)
        assert_experiments(journal, emulator)
        assert_models(journal, emulator)
        client = Tracking(server.url)
        assert_readable(journal, client)
        fresh = train(client, client.create_experiment("fresh"), "fresh", steps=2)
        drain(server)
        assert_delivered(emulator, fresh)


def assert_children(journal: KeptJournal, emulator: EmulatorProcess) -> None:
    """Children are below their parents."""
    for document in journal.acknowledged["runs"]:
        held = run_of(emulator, document["run_id"])
        assert held.document["parent_run_id"] == document.get("parent")


def assert_experiments(journal: KeptJournal, emulator: EmulatorProcess) -> None:
    """Each experiment is there once, alive or deleted as it was left, with no run too many."""
    stages = {one["name"]: one["lifecycle_stage"] for one in emulator.experiments()}
    assert stages == journal.acknowledged["experiments"]
    acknowledged = [run.run_id for run in journal.runs]
    for name, stage in journal.acknowledged["experiments"].items():
        found = [held.run_id for held in runs_of(emulator, name)]
        assert stage == "deleted" or sorted(found) == sorted(set(found) & set(acknowledged))


def assert_models(journal: KeptJournal, emulator: EmulatorProcess) -> None:
    """Each registered model is there with the versions that were left, as they were left."""
    held = {model["name"]: model for model in emulator.registered_models()}
    assert held.keys() == journal.acknowledged["models"].keys()
    for name, model in journal.acknowledged["models"].items():
        assert held[name]["description"] == model["description"]
        assert {tag["key"]: tag["value"] for tag in held[name]["tags"]} == model["tags"]
        versions = {version["version"]: version for version in held[name]["versions"]}
        assert versions.keys() == model["versions"].keys()
        for number, version in model["versions"].items():
            tags = {tag["key"]: tag["value"] for tag in versions[number]["tags"]}
            assert versions[number]["current_stage"] == version["stage"]
            assert versions[number]["description"] == version["description"]
            assert {key: tags.get(key) for key in version["tags"]} == version["tags"]
            assert "gone" not in tags


def assert_readable(journal: KeptJournal, client: Tracking) -> None:
    """What was acknowledged is what the proxy answers."""
    for document, run in zip(journal.acknowledged["runs"], journal.runs, strict=True):
        read = client.get("runs/get", run_id=run.run_id)["run"]
        assert {item["key"]: item["value"] for item in read["data"].get("params", [])} == run.params
        tags = {tag["key"]: tag["value"] for tag in read["data"]["tags"]}
        assert run.tags.items() <= tags.items()
        assert tags.get(PARENT_TAG) == document.get("parent")
        assert read["info"]["status"] == run.status
