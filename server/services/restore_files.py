"""The files of a restore: unpacked beside what is there, then exchanged with it.

The spool's folder may be a volume of its own, so it is never renamed: what is in it is moved within it.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.database.data_folder import flush_folder
from server.database.engine import Database, Transaction
from server.services.backup_file import BackupFileError, Header, Member, spool_name_of
from server.spool.spool import list_shards, path_in
from server.store import artifacts

_SQLITE_SUFFIXES = ("", "-wal", "-shm")
_STAGING_PREFIX = ".restore-"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to restore to."""

    data_dir: Path
    spool_dir: Path
    database_url: str

    @property
    def sqlite_file(self) -> Path | None:
        """The database file, for SQLite: in the data folder or elsewhere."""
        with closing(Database(self.database_url)) as database:
            return database.sqlite_path

    def database_files(self) -> list[Path]:
        """The files of an SQLite database that is there."""
        file = self.sqlite_file
        if file is None:
            return []
        files = [file.with_name(file.name + suffix) for suffix in _SQLITE_SUFFIXES]
        return [path for path in files if path.exists()]


@dataclass(frozen=True, slots=True)
class Staging:
    """Folders beside what is there, for what is to take its place."""

    database: Path
    spool: Path

    def take_database(self, member: Member) -> None:
        """Unpack an SQLite database."""
        _write(self.database, member)

    def take_spooled(self, member: Member) -> None:
        """Unpack a spooled file.

        Raises:
            BackupFileError: the member is not one.
        """
        name = spool_name_of(member.name)
        if name is None:
            raise BackupFileError(f"The backup holds {member.name!r}, which this version does not know.")
        path = path_in(self.spool, name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _write(path, member)

    def check_spooled(self, transaction: Transaction, header: Header) -> None:
        """Every file that the database names must be there.

        Raises:
            BackupFileError: one is not.
        """
        wanted = artifacts.list_spool_names(transaction) - {*header.lost_files}
        missing = [name for name in wanted if not path_in(self.spool, name).exists()]
        if missing:
            raise BackupFileError(f"The backup lacks {len(missing)} files that its database names.")


@contextmanager
def staged(place: Place) -> Iterator[Staging]:
    """Empty staging folders; whatever is left in them is removed at the end."""
    name = f"{_STAGING_PREFIX}{secrets.token_hex(4)}"
    beside = place.sqlite_file or place.data_dir / "database"
    folders = (beside.with_name(name), place.spool_dir / name)
    for folder in folders:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for abandoned in folder.parent.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(abandoned)
    for folder in folders:
        folder.mkdir(mode=0o700)
    try:
        yield Staging(folders[0] / beside.name, folders[1])
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def move_files_aside(place: Place, stamp: str) -> list[Path]:
    """Move what is there into folders of its own, which are given; none where nothing was there."""
    moved = []
    files, shards = place.database_files(), list_shards(place.spool_dir)
    if files:
        moved.append(_move(files, files[0].with_name(f"replaced-{stamp}")))
    if any(any(shard.iterdir()) for shard in shards):
        moved.append(_move(shards, place.spool_dir / f".replaced-{stamp}"))
    return moved


def put_spool_in_place(place: Place, staging: Staging) -> None:
    """Make what was unpacked the spool's; it holds no other files by now."""
    for empty in list_shards(place.spool_dir):
        empty.rmdir()
    for shard in list_shards(staging.spool):
        flush_folder(shard)
        shard.rename(place.spool_dir / shard.name)
    flush_folder(place.spool_dir)


def put_database_in_place(place: Place, staging: Staging) -> None:
    """Make the unpacked SQLite database the one that is used."""
    file = place.sqlite_file
    if file is None:
        raise ValueError("The place is not one for SQLite.")
    staging.database.rename(file)
    flush_folder(file.parent)


def _move(paths: list[Path], folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    for path in paths:
        path.rename(folder / path.name)
    flush_folder(folder)
    flush_folder(folder.parent)
    return folder


def _write(path: Path, member: Member) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        for piece in member.pieces():
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
