"""The backup file: a sealed tar of a header, the database, the spooled files it names, and a manifest.

Nothing is ever unpacked under a name that the tar gives: only members of the few kinds below are known.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import msgspec

from server.services import sealed_tar
from server.services.sealed_tar import Kind, SealedFileError, SealedReader, SealedWriter

FORMAT = 1
HEADER = "backup.json"
SQLITE_FILE = "database.sqlite"
_TABLE = re.compile(r"tables/([a-z_]+)/([0-9]{6})")
_SPOOLED = re.compile(r"spool/([0-9a-f]{40})")
Member: TypeAlias = sealed_tar.Member


class BackupFileError(SealedFileError):
    """The file is not a whole backup that this version can read; the message says why."""


class DatabaseKind(StrEnum):
    """What a backup's database was."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Header(msgspec.Struct, frozen=True):
    """Where a backup comes from.

    `created_at_ms` is a moment just after the last commit that it holds. `lost_files` had been lost already
    when it was made: rows of it name them.
    """

    format: int
    product_version: str
    schema_revision: str
    database: DatabaseKind
    installation: str
    generation: int
    created_at_ms: int
    tables: dict[str, list[str]]
    sequences: dict[str, int]
    lost_files: list[str]


Manifest: TypeAlias = sealed_tar.Manifest[Header]
_KIND = Kind(
    noun="backup", header_name=HEADER, header_type=Header, newest_format=FORMAT, error=BackupFileError
)


def table_member(table: str, number: int) -> str:
    """The name of one part of a table's rows."""
    return f"tables/{table}/{number:06}"


def table_of(name: str) -> str | None:
    """The table that a member holds rows of."""
    match = _TABLE.fullmatch(name)
    return match[1] if match else None


def spool_member(spool_name: str) -> str:
    """The name of a spooled file's member."""
    return f"spool/{spool_name}"


def spool_name_of(name: str) -> str | None:
    """The spooled file that a member holds."""
    match = _SPOOLED.fullmatch(name)
    return match[1] if match else None


class BackupWriter(SealedWriter):
    """Makes the bytes of a backup, one member after the other."""

    def __init__(self, header: Header) -> None:
        super().__init__(HEADER, header)


class BackupReader(SealedReader[Header]):
    """Reads a backup once, from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _KIND)
