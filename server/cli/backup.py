"""`backup` and `restore`: everything the server holds, as one file, and back."""

import asyncio
import gzip
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from server.cli.console import app, explained, run, say, settings_of, shown_size
from server.domain.errors import OperatorError

if TYPE_CHECKING:
    from server.services.backup_file import Header, Manifest
    from server.services.restore import Restored
    from server.settings import Settings

_NICENESS = 10
_COMPRESSION = 3
_HEADER_BYTES = 64 * 1024
_FLUSHED_BYTES = 16 * 1024 * 1024
_SECONDS_BETWEEN_LINES = 10.0


class BackupTargetError(OperatorError):
    """The backup cannot be written there; the message says why."""


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; its name may end in .gz.")],
) -> None:
    """Write all that the server holds to one file, while it serves.

    The file holds everything that clients logged, the secrets that webhooks are signed with, and the hashes
    of API keys, never a key itself. Only its owner may read it.
    """
    settings = settings_of()
    os.nice(_NICENESS)  # the server, and whoever waits for it, goes first
    with explained():
        run(_back_up(settings, file))


async def _back_up(settings: "Settings", file: Path) -> None:
    from server.admin import open_backup
    from server.services.backup_file import BackupReader

    with partial_file(file) as partial:
        async with open_backup(settings) as incoming, _progress(incoming.expected_bytes) as progress:
            async for piece in incoming.pieces:
                partial.write(piece)
                progress.done_bytes += len(piece)
        partial.finish()
        typer.echo("Reading it again to check it.", err=True)
        manifest = BackupReader(partial.path).manifest()
        size_bytes = partial.publish()
    say(f"{file}: {shown_size(size_bytes)}, {_described(manifest)}.")


def _described(manifest: "Manifest") -> str:
    from server.services.backup_file import spool_name_of

    header = manifest.header
    spooled = sum(spool_name_of(member.name) is not None for member in manifest.members)
    lost = f", {len(header.lost_files)} spooled files had been lost before" if header.lost_files else ""
    return (
        f"{header.database.value}, schema {header.schema_revision}, generation {header.generation},"
        f" {spooled} spooled files{lost}"
    )


class PartialFile:
    """A file under another name until it is whole."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = open(descriptor, "wb")  # noqa: SIM115 - closed by `finish` and `discard`
        compressed = gzip.GzipFile("", "wb", _COMPRESSION, self._file) if target.suffix == ".gz" else None
        self._out = cast(IO[bytes], compressed or self._file)
        self._unflushed_bytes = 0

    def write(self, piece: bytes) -> None:
        """Append a piece. The server may flush to the same disk: little is kept from it at a time."""
        self._out.write(piece)
        self._unflushed_bytes += len(piece)
        if self._unflushed_bytes >= _FLUSHED_BYTES:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._unflushed_bytes = 0

    def finish(self) -> None:
        """Flush all of it."""
        if self._out is not self._file:
            self._out.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> int:
        """Give it its name, unless that is taken by now; its size in bytes.

        Raises:
            BackupTargetError: it is taken.
        """
        from server.database.data_folder import flush_folder

        size_bytes = self.path.stat().st_size
        try:
            os.link(self.path, self._target)
        except FileExistsError:
            raise _is_taken(self._target) from None
        except OSError:
            # A file system without links. Nobody else is expected to take the name in this moment.
            if self._target.exists():
                raise _is_taken(self._target) from None
            self.path.rename(self._target)
        flush_folder(self._target.parent)
        return size_bytes

    def discard(self) -> None:
        """Leave nothing under the other name."""
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def partial_file(target: Path) -> Iterator[PartialFile]:
    """A file to write, which nobody sees before it is published.

    Raises:
        BackupTargetError: the name is taken, or the file cannot be written.
    """
    if target.exists():
        raise _is_taken(target)
    try:
        partial = PartialFile(target.absolute())
    except OSError as error:
        raise BackupTargetError(f"{target} cannot be written: {error.strerror}.") from error
    try:
        yield partial
    except OSError as error:
        raise BackupTargetError(f"{target} could not be written: {error.strerror}.") from error
    finally:
        partial.discard()


def _is_taken(target: Path) -> BackupTargetError:
    return BackupTargetError(f"{target} exists, and is left as it is. Name another file.")


class _Progress:
    """How far it is."""

    def __init__(self, expected_bytes: int) -> None:
        self.done_bytes = 0
        self._expected_bytes = expected_bytes
        self._started = time.monotonic()

    def line(self) -> str:
        seconds = time.monotonic() - self._started
        expected = shown_size(self._expected_bytes)
        if self.done_bytes <= _HEADER_BYTES:
            return f"The server copies its database, about {expected}: {seconds:.0f} s"
        rate = shown_size(self.done_bytes / max(seconds, 0.001))
        return f"{shown_size(self.done_bytes)} of about {expected}, {rate}/s"


@asynccontextmanager
async def _progress(expected_bytes: int) -> AsyncIterator[_Progress]:
    """Says now and then, on stderr, how far it is: in one line of a terminal, else in a few lines."""
    progress = _Progress(expected_bytes)
    is_terminal = sys.stderr.isatty()

    async def show() -> None:
        while True:
            await asyncio.sleep(0.5 if is_terminal else _SECONDS_BETWEEN_LINES)
            typer.echo(
                f"\r{progress.line():<70}" if is_terminal else progress.line(), err=True, nl=not is_terminal
            )

    showing = asyncio.create_task(show())
    try:
        yield progress
    finally:
        showing.cancel()
        if is_terminal:
            typer.echo("", err=True)


@app.command()
def restore(
    file: Annotated[
        Path, typer.Argument(help="A file that `mlproxy backup` wrote.", exists=True, dir_okay=False)
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move aside what is there now. It is not deleted.")
    ] = False,
) -> None:
    """Put a backup in place. The server must be stopped, and the one that was backed up never start again.

    What the backup holds as undelivered may have been delivered since. Each such entry is looked for in the
    workspace before it is sent.
    """
    settings = settings_of()
    with explained():
        restored = _restore(settings, file, replaces=replace)
    header, state = restored.header, restored.state
    say(f"Restored {file}, {_made(header)}, as generation {state.generation} of the journal.")
    if restored.moved_to:
        say(f"What was there before is in {' and '.join(restored.moved_to)}.")
    say(f"Start the server: it reads {state.being_read_back} undelivered entries back before it sends any.")


def _restore(settings: "Settings", file: Path, *, replaces: bool) -> "Restored":
    from server.database.data_folder import lock_data_folder
    from server.domain.clock import machine_clock
    from server.services.restore import restore as put_in_place
    from server.services.restore_files import Place

    lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite, is_restoring=True)
    try:
        place = Place(settings.data_dir, settings.spool_folder, settings.url)
        return put_in_place(file, place, replaces=replaces, clock=machine_clock())
    except OSError as error:
        raise BackupTargetError(f"Nothing was restored: {error}.") from error
    finally:
        if lock is not None:
            lock.release()


def _made(header: "Header") -> str:
    from datetime import UTC, datetime

    made = datetime.fromtimestamp(header.created_at_ms / 1000, UTC)
    return f"made at {made:%Y-%m-%d %H:%M:%S} UTC by version {header.product_version}"
