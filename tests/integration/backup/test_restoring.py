"""Putting a backup in place: what is refused, what is moved aside, what an older version's becomes."""

import asyncio
import tarfile
from pathlib import Path
from typing import Any

import pytest

from server.database import copying
from server.database.data_folder import RestoreUnfinishedError, UnfinishedRestore, lock_data_folder
from server.database.engine import Database, Transaction
from server.database.migration import HEAD, current_revision, upgrade
from server.database.session import list_living
from server.services.backup_file import (
    FORMAT,
    SQLITE_FILE,
    BackupFileError,
    BackupReader,
    BackupWriter,
    DatabaseKind,
    Header,
    table_member,
)
from server.services.restore import RestoreError
from server.services.restore_files import Place
from tests.integration.backup.conftest import Site
from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CUTS = {"in the header": 700, "in the database": 200_000, "before the manifest": -3_000}


async def _filled(site: Site) -> tuple[Place, Path, str]:
    """A place with a run and a spooled file, a backup of it, and the run's id."""
    place = site.place()
    async with site.server(place, workspace=None) as server:
        run_id = await _log(server)
    return place, await site.back_up(place), run_id


async def _log(server: Tracking) -> str:
    experiment_id = await server.experiment()
    run_id = await server.run(experiment_id=experiment_id)
    await server.post("runs/log-metric", run_id=run_id, key="m", value=0.1, timestamp=1)
    folder = f"{experiment_id}/{run_id}/artifacts"
    url = f"/api/2.0/mlflow-artifacts/artifacts/{folder}/big.bin"
    assert (await server.http.put(url, content=bytes(100_000))).status_code == 200
    return run_id


async def _names(site: Site, place: Place) -> list[str]:
    """The experiments that a server on the place knows."""
    async with site.server(place, workspace=None) as server:
        answer = await server.get("experiments/search", max_results=10)
        return sorted(item["name"] for item in answer["experiments"])


# --- what is in the file --------------------------------------------------------------------


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_damaged_file_is_refused_and_nothing_is_touched(site: Site) -> None:
    """Cut off anywhere, or with one bit changed anywhere, it is no backup; the place stays empty."""
    _, file, _ = await _filled(site)
    content = file.read_bytes()
    broken = [content[:at] for at in _CUTS.values()]
    for at in (600, 300_000, len(content) - 2_500):
        changed = bytearray(content)
        changed[at] ^= 1
        broken.append(bytes(changed))
    place = site.place()
    for number, damaged in enumerate(broken):
        other = site.folder / f"damaged-{number}.tar"
        other.write_bytes(damaged)
        with pytest.raises(BackupFileError):
            site.restore(other, place)
    assert [path.name for path in place.data_dir.rglob("*")] == ["spool"]


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_tar_of_something_else_is_refused(site: Site) -> None:
    """No member is ever written under a name that the tar gives."""
    file = site.folder / "other.tar"
    with tarfile.open(file, "w") as tar:
        tar.add(__file__, arcname="../../escaped.py")
    with pytest.raises(BackupFileError, match="not a backup"):
        site.restore(file, site.place())


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_members_of_other_names_are_refused(site: Site) -> None:
    """A backup that holds more than a backup can hold is not unpacked."""
    file = site.folder / "more.tar"
    _write(file, _header(DatabaseKind.SQLITE), {"../../escaped": b"x"})
    place = site.place()
    with pytest.raises(BackupFileError, match="does not know"):
        site.restore(file, place)
    assert [path.name for path in place.data_dir.rglob("*")] == ["spool"]


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_newer_versions_backup_is_refused(site: Site) -> None:
    """The refusal names the upgrade."""
    for header in (_header(DatabaseKind.SQLITE, revision="9999"), _header(DatabaseKind.SQLITE, format_=99)):
        file = site.folder / f"newer-{header.format}.tar"
        _write(file, header, {})
        with pytest.raises(BackupFileError, match="Upgrade mlproxy"):
            site.restore(file, site.place())


async def test_the_other_kind_of_database_is_refused(site: Site) -> None:
    """A backup of one database cannot be restored into the other; the setting is named."""
    other = DatabaseKind.POSTGRES if site.kind == "sqlite" else DatabaseKind.SQLITE
    file = site.folder / "other.tar"
    _write(file, _header(other), {})
    with pytest.raises(RestoreError, match="MLPROXY_DATABASE_URL"):
        site.restore(file, site.place())


async def test_a_backup_without_the_bytes_of_its_rows_is_refused(site: Site) -> None:
    """Though the file is as its manifest says, a row that names a file which is not in it keeps it out."""
    _, file, _ = await _filled(site)
    reader = BackupReader(file)
    header = reader.header()
    kept = {
        member.name: b"".join(member.pieces())
        for member in reader.members()
        if not member.name.startswith("spool/")
    }
    without = site.folder / "without.tar"
    _write(without, header, kept)
    place = site.place()
    with pytest.raises(BackupFileError, match="lacks 1 files"):
        site.restore(without, place)
    site.restore(file, place)


def _header(kind: DatabaseKind, *, revision: str = HEAD, format_: int = FORMAT, **fields: Any) -> Header:
    values: dict[str, Any] = {"tables": {}, "sequences": {}, "lost_files": [], **fields}
    return Header(
        format=format_,
        product_version="0.0",
        schema_revision=revision,
        database=kind,
        installation="test",
        generation=1,
        created_at_ms=1,
        **values,
    )


def _write(file: Path, header: Header, members: dict[str, bytes]) -> None:
    backup = BackupWriter(header)
    with file.open("wb") as written:
        written.writelines(backup.begin())
        for name, content in members.items():
            written.writelines(backup.member(name, len(content), [content]))
        written.writelines(backup.end())


# --- where it goes --------------------------------------------------------------------------


async def test_a_place_in_use_is_refused_and_replaced_only_when_told(site: Site) -> None:
    """With `--replace` what was there is moved aside, whole; nothing is deleted."""
    _, file, run_id = await _filled(site)
    place = site.place()
    async with site.server(place, workspace=None) as server:
        await _log(server)
    there = await _names(site, place)
    with pytest.raises(RestoreError, match="--replace"):
        site.restore(file, place)
    assert await _names(site, place) == there
    restored = site.restore(file, place, replaces=True)
    async with site.server(place, workspace=None) as server:
        assert (await server.data(run_id))[0] == {"m": 0.1}
    assert len(restored.moved_to) == 2
    aside = [Path(path) for path in restored.moved_to if not path.startswith("schema ")]
    assert sum(path.stat().st_size for path in aside[-1].rglob("*") if path.is_file()) == 100_000
    if site.kind == "sqlite":
        old = Database(f"sqlite:///{aside[0]}/proxy.db")
        with old.reading() as transaction:
            assert transaction.rows("SELECT count(*) FROM runs")[0][0] == 1
        old.close()
        return
    schema = restored.moved_to[0].removeprefix("schema ")
    database = Database(place.database_url)
    with database.reading() as transaction:
        assert transaction.rows(f'SELECT count(*) FROM "{schema}".runs')[0][0] == 1
    database.close()


async def test_a_restored_server_goes_on_as_the_old_one(site: Site) -> None:
    """New rows get numbers of their own, files can be read, and a backup of it can be made again."""
    _, file, run_id = await _filled(site)
    place = site.place()
    restored = site.restore(file, place)
    assert (restored.state.generation, restored.moved_to) == (2, [])
    assert restored.state.being_read_back > 0
    async with site.server(place, workspace=None) as server:
        await _log(server)
        root = (await server.get("runs/get", run_id=run_id))["run"]["info"]["artifact_uri"]
        path = root.removeprefix("mlflow-artifacts:/")
        answer = await server.http.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}/big.bin")
        assert answer.content == bytes(100_000)
    again = site.place()
    assert site.restore(await site.back_up(place), again).state.generation == 3


@pytest.mark.parametrize("site", ["postgres"], indirect=True)
async def test_postgres_is_not_restored_under_a_running_server(site: Site) -> None:
    """While a server works on the database it is left alone, `--replace` or not."""
    _, file, _ = await _filled(site)
    place = site.place()
    async with site.server(place, workspace=None):
        database = Database(place.database_url)
        async with asyncio.timeout(120):
            while not await database.read(list_living):  # noqa: ASYNC110 - the session tells nobody
                await asyncio.sleep(0.05)
        database.close()
        with pytest.raises(RestoreError, match="stop every one of them"):
            site.restore(file, place, replaces=True)


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_an_unfinished_restore_keeps_servers_away(site: Site) -> None:
    """Nothing but another restore opens a folder that holds parts of two databases."""
    place = site.place()
    UnfinishedRestore(place.data_dir).set()
    with pytest.raises(RestoreUnfinishedError, match="--replace"):
        lock_data_folder(place.data_dir, holds_database=True)
    lock = lock_data_folder(place.data_dir, holds_database=True, is_restoring=True)
    assert lock is not None
    lock.release()


# --- older versions -------------------------------------------------------------------------


async def test_an_older_schema_is_brought_up_to_date(site: Site) -> None:
    """A backup that the first released schema was written to can be restored by this version."""
    old = site.place()
    database = Database(old.database_url)
    with database.writing(0) as transaction:
        upgrade(transaction, "0001")
    with database.writing(0) as transaction:
        transaction.run(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage,"
            " creation_time_ms, last_update_time_ms, born, upstream_name, lane_id)"
            " VALUES (7, 'old', 'mlflow-artifacts:/7', 'active', 1, 1, 'proxy', 'old', 1)"
        )
        transaction.run("INSERT INTO lanes (kind, subject_id) VALUES ('experiment', 7)")
    file = site.folder / "old.tar"
    with database.reading() as transaction:
        _write(file, *_old_backup(transaction, site.folder / "copy.sqlite"))
    database.close()
    place = site.place()
    assert site.restore(file, place).state.generation == 2
    restored = Database(place.database_url)
    assert current_revision(restored) == HEAD
    restored.close()
    assert await _names(site, place) == ["Default", "old"]


def _old_backup(transaction: Transaction, copy: Path) -> tuple[Header, dict[str, bytes]]:
    """A backup as the first version would have made it."""
    if not transaction.is_postgres:
        transaction.rows("SELECT 1 FROM experiments")
        copying.copy_sqlite(transaction, copy, lambda: True)
        return _header(DatabaseKind.SQLITE, revision="0001"), {SQLITE_FILE: copy.read_bytes()}
    tables: dict[str, list[str]] = {}
    for table, column in transaction.rows(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    ):
        tables.setdefault(table, []).append(column)
    parts = {
        table_member(table, number): part
        for table, columns in tables.items()
        for number, part in enumerate(copying.export_table(transaction, table, columns))
    }
    return _header(DatabaseKind.POSTGRES, revision="0001", tables=tables), parts


# --- reading it -----------------------------------------------------------------------------


async def test_the_manifest_tells_what_the_backup_holds(site: Site) -> None:
    """Every member with its size and its hash; the header says where it comes from."""
    _, file, _ = await _filled(site)
    reader = BackupReader(file)
    header = reader.header()
    assert (header.schema_revision, header.database.value, header.generation) == (HEAD, site.kind, 1)
    assert header.lost_files == []
    names = [member.name for member in reader.manifest().members]
    assert names[0] == "backup.json"
    assert sum(name.startswith("spool/") for name in names) == 1
    with tarfile.open(file) as tar:
        assert {(member.uid, member.mode) for member in tar} == {(0, 0o600)}
        assert tar.getnames() == [*names, "manifest.json"]
