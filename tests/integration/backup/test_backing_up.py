"""Making a backup: one at a time, never what fills the disk, and whole also where bytes were lost before."""

import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from server.database.engine import Database
from server.domain.clock import SystemClock
from server.domain.errors import MlflowError
from server.services.backup import Backups
from server.services.backup_file import BackupReader
from server.services.restore_files import Place
from server.spool.spool import Spool
from tests.integration.backup.conftest import Site
from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def _backups(place: Place) -> AsyncIterator[Backups]:
    """What makes backups of a place."""
    database, spool = Database(place.database_url), Spool(place.spool_dir, 2**30)
    try:
        yield Backups(database=database, spool=spool, clock=SystemClock())
    finally:
        spool.close()
        database.close()


async def _log(server: Tracking, files: int = 1) -> None:
    experiment_id = await server.experiment()
    run_id = await server.run(experiment_id=experiment_id)
    for number in range(files):
        url = f"/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run_id}/artifacts/{number}.bin"
        assert (await server.http.put(url, content=bytes([number]) * 100_000)).status_code == 200


def _held(place: Place) -> list[Path]:
    return list(place.spool_dir.glob(".hold-*"))


async def test_only_one_is_made_at_a_time_and_one_given_up_leaves_nothing(site: Site) -> None:
    """A second is refused with 409; when the first is not wanted any more, another can be made."""
    place = site.place()
    async with site.server(place, workspace=None) as server:
        await _log(server)
    async with _backups(place) as backups:
        async with aclosing(backups.stream()) as pieces:
            await anext(pieces)
            assert _held(place)
            with pytest.raises(MlflowError) as refused:
                await anext(backups.stream())
            assert refused.value.status == 409
        assert _held(place) == []
        async with aclosing(backups.stream()) as pieces:
            assert [piece async for piece in pieces]
        assert _held(place) == []


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_it_is_refused_where_its_copy_would_fill_the_disk(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """507, with what is needed and what is free; the server's disk is left alone."""
    place = site.place()
    async with site.server(place, workspace=None) as server:
        await _log(server)
    usage: Any = shutil.disk_usage(place.data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=200 * 1024 * 1024))
    async with _backups(place) as backups:
        with pytest.raises(MlflowError, match="A backup needs") as refused:
            await anext(backups.stream())
    assert refused.value.status == 507
    assert _held(place) == []


async def test_bytes_that_were_lost_before_are_named(site: Site) -> None:
    """A spool that has lost a file can be backed up; the backup says which, and can be restored."""
    place = site.place()
    async with site.server(place, workspace=None) as server:
        await _log(server, files=3)
    lost = next(path for path in place.spool_dir.glob("??/*") if path.is_file())
    lost.unlink()
    file = await site.back_up(place)
    manifest = BackupReader(file).manifest()
    assert manifest.header.lost_files == [lost.name]
    assert sum(member.name.startswith("spool/") for member in manifest.members) == 2
    assert site.restore(file, site.place()).state.generation == 2
