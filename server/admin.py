"""Asking the server: the running one over its admin socket, or one that runs only for this command."""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import httpx

from server.database.data_folder import ADMIN_SOCKET, DataFolderError, lock_data_folder, short_path
from server.domain.access import user_name
from server.domain.errors import MlflowError, OperatorError
from server.in_process import InProcessTransport
from server.settings import Settings

_BASE_URL = "http://localhost"
_OWN = "/api/2.0/mlproxy"
_PIECE_BYTES = 1024 * 1024
# The server first copies its database, and says nothing meanwhile.
_BACKUP_PATIENCE_SECONDS = 6 * 3600.0


class ServerSilentError(OperatorError):
    """A server holds the data folder, and does not answer."""


@asynccontextmanager
async def connect(settings: Settings, *, patience: float, delivers: bool) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server that holds the data folder; with none, of one made for the occasion.

    `delivers` lets a server made for the occasion replay as well. Nothing heavy is imported to speak
    to a running server.

    Raises:
        ServerSilentError: a server holds the folder, and does not answer.
    """
    try:
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
    except DataFolderError:
        async with _running(settings, patience) as client:
            yield client
        return
    try:
        async with _made_for_this(settings, patience, delivers=delivers) as client:
            yield client
    finally:
        if lock is not None:
            lock.release()


@asynccontextmanager
async def _running(settings: Settings, patience: float) -> AsyncIterator[httpx.AsyncClient]:
    with short_path(settings.data_dir / ADMIN_SOCKET) as path:
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url=_BASE_URL, timeout=patience) as client:
            try:
                yield client
            except httpx.TransportError as error:
                raise ServerSilentError(
                    f"The server on {settings.data_dir} does not answer: {error}"
                ) from error


@asynccontextmanager
async def _made_for_this(
    settings: Settings, patience: float, *, delivers: bool
) -> AsyncIterator[httpx.AsyncClient]:
    from server.bootstrap import build  # imported when needed: it takes half a second

    server = await build(settings, replays=delivers and settings.is_sqlite)
    try:
        await server.start()
        transport = InProcessTransport(_as_local_user(server.admin_door))
        async with httpx.AsyncClient(transport=transport, base_url=_BASE_URL, timeout=patience) as client:
            yield client
    finally:
        await server.stop()


def _as_local_user(door: Any) -> Any:
    """The door as the user who runs this command reaches it."""
    from server.api.endpoints import OPERATOR  # imported when needed, too

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        await door({**scope, "state": {OPERATOR: user_name(os.getuid())}}, receive, send)

    return serve


# --- backups --------------------------------------------------------------------------------


class BackupRefusedError(OperatorError):
    """No backup can be made now; the message says why."""


@dataclass(frozen=True, slots=True)
class IncomingBackup:
    """A backup that is being made. It is whole if `pieces` ends without an error."""

    expected_bytes: int
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def open_backup(settings: Settings) -> AsyncIterator[IncomingBackup]:
    """A backup from the server that holds the data folder; with none, from the database itself.

    Raises:
        ServerSilentError: a server holds the folder, and does not answer.
        BackupRefusedError: it cannot be made.
    """
    try:
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
    except DataFolderError:
        async with _running(settings, _BACKUP_PATIENCE_SECONDS) as client, _asked(client) as backup:
            yield backup
        return
    try:
        async with _made_here(settings) as backup:
            yield backup
    finally:
        if lock is not None:
            lock.release()


@asynccontextmanager
async def _asked(client: httpx.AsyncClient) -> AsyncIterator[IncomingBackup]:
    async with client.stream("GET", f"{_OWN}/backup") as answer:
        if answer.is_error:
            await answer.aread()
            raise BackupRefusedError(answer.json().get("message", answer.text))
        expected = int(answer.headers.get("x-mlproxy-expected-bytes", 0))
        yield IncomingBackup(expected, answer.aiter_raw(_PIECE_BYTES))


@asynccontextmanager
async def _made_here(settings: Settings) -> AsyncIterator[IncomingBackup]:
    from server.database.engine import Database  # imported when needed, as what follows
    from server.database.migration import SchemaError, current_revision, prepare_schema
    from server.domain.clock import machine_clock
    from server.services.backup import Backups
    from server.spool.spool import Spool

    with closing(Database(settings.url)) as database:
        database.require_reachable()
        if current_revision(database) is None:
            raise SchemaError("There is nothing to back up: the database is empty.")
        prepare_schema(database)
        with closing(Spool(settings.spool_folder, settings.max_spool_bytes)) as spool:
            backups = Backups(database=database, spool=spool, clock=machine_clock())
            try:
                async with aclosing(backups.stream()) as pieces:
                    yield IncomingBackup(await backups.expected_bytes(), pieces)
            except MlflowError as error:
                raise BackupRefusedError(error.message) from error
