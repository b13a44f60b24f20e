"""Asking the server: the running one over its admin socket, or one that runs only for this command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from server.database.data_folder import ADMIN_SOCKET, DataFolderError, lock_data_folder, short_path
from server.domain.errors import OperatorError
from server.settings import Settings

_BASE_URL = "http://localhost"


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
        transport = httpx.ASGITransport(app=server.admin_door)
        async with httpx.AsyncClient(transport=transport, base_url=_BASE_URL, timeout=patience) as client:
            yield client
    finally:
        await server.stop()
