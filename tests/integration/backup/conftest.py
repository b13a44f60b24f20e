"""A workspace, and servers on it that are backed up, lost and restored, all in this process."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from server.admin import open_backup
from server.domain.clock import SystemClock
from server.services.restore import Restored, restore
from server.services.restore_files import Place
from server.settings import Settings
from tests.support.emulator import EmulatorProcess
from tests.support.tracking import Tracking, tracking_server

MakeDatabase = Callable[[str], str]
_EVERYTHING = ".*/(mlflow|history|artifact)/.*"


@pytest.fixture(scope="module")
def module_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """The module's workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@dataclass(slots=True)
class Site:
    """Where servers of one kind live, one after the other."""

    kind: str
    emulator: EmulatorProcess
    folder: Path
    make_database: MakeDatabase
    numbers: Iterator[int] = field(default_factory=count)

    def place(self) -> Place:
        """Another empty one."""
        folder = self.folder / f"place-{next(self.numbers)}"
        folder.mkdir()
        url = self.make_database(self.kind)
        return Place(folder, folder / "spool", url)

    @asynccontextmanager
    async def server(self, place: Place, **settings: Any) -> AsyncIterator[Tracking]:
        """A server at a place, soon sure of what it does not see."""
        delivery = {
            "workspace": self.emulator.tracking_uri,
            "credential": "managed-identity",
            "settle_seconds": 0.1,
            "marker_settle_seconds": 0.1,
        }
        async with tracking_server(place.database_url, place.data_dir, **{**delivery, **settings}) as server:
            yield server

    async def back_up(self, place: Place) -> Path:
        """A backup of what is there."""
        file = self.folder / f"backup-{next(self.numbers)}.tar"
        settings = Settings(data_dir=place.data_dir, database_url=place.database_url)
        with file.open("wb") as written:
            async with open_backup(settings) as incoming:
                async for piece in incoming.pieces:
                    written.write(piece)
        return file

    def restore(self, file: Path, place: Place, *, replaces: bool = False) -> Restored:
        """Put a backup there."""
        return restore(file, place, replaces=replaces, clock=SystemClock())

    def cut_off(self) -> None:
        """The workspace refuses every call, and none of them takes effect."""
        self.emulator.add_fault(match=_EVERYTHING, effect="status", status=503)


async def drained(server: Tracking, *, seconds: float = 180.0) -> int:
    """Wait until all is delivered; how many entries are parked."""
    answer = await server.post("/api/2.0/mlproxy/drain", timeout_seconds=seconds)
    assert (answer["pending"], answer["uncertain"]) == (0, 0), answer
    return int(answer["parked"])


@pytest.fixture(params=["sqlite", "postgres"])
def site(
    request: pytest.FixtureRequest,
    module_emulator: EmulatorProcess,
    make_database: MakeDatabase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A place for servers, on each database."""
    for name, value in module_emulator.environment().items():
        monkeypatch.setenv(name, value)
    yield Site(request.param, module_emulator, tmp_path, make_database)
    module_emulator.clear_faults()
