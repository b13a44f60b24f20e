"""Artifacts: files of runs, of logged models, and of anything else a client keeps here.

A file of a run, or of a logged model that a run made, is also delivered to the run's folder in the
workspace, in the order of its lane. Everything else is kept here only.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import ErrorCode, MlflowError, does_not_exist
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.protocol.artifacts import checked_folder, checked_path, invalid_path
from server.services.artifact_places import (
    ArtifactLane,
    FoundFile,
    check_is_free,
    find_file,
    find_file_here,
    joined,
    model_folder,
    place_for_writing,
    place_of,
    run_folder,
    version_folder,
)
from server.spool.spool import INLINE_LIMIT, Received, Spool
from server.store import artifacts
from server.store.artifacts import ArtifactFile, FolderEntry
from server.upstream.failures import UpstreamFailure

_DELETED_AT_ONCE = 200


class UpstreamBytes(Protocol):
    """Reads what the workspace keeps of our runs."""

    def open_read(
        self, run_id: str, upstream_path: str, offset: int, length: int | None
    ) -> AsyncIterator[bytes]:
        """Bytes of a file under a run; `run_id` is ours.

        Raises:
            UpstreamFailure: the workspace cannot give them; `is_missing` when it does not have them.
        """
        ...


class Artifacts:
    """What can be done with artifacts. A path is as clients send it, below `mlflow-artifacts:/`."""

    def __init__(
        self, *, database: Database, writer: Writer, spool: Spool, upstream: UpstreamBytes | None
    ) -> None:
        self._database = database
        self._writer = writer
        self._spool = spool
        self._upstream = upstream

    # --- writing ---

    async def upload(
        self, path: str, chunks: AsyncIterator[bytes], declared_size: int | None, principal: str | None
    ) -> None:
        """Take in a file and store it. One that cannot be stored is refused before it is read.

        Raises:
            MlflowError: the path cannot be written to, or there is no room (429, or 507).
        """
        checked = checked_path(path)
        if declared_size is None or declared_size > INLINE_LIMIT:
            place = await self._database.read(lambda transaction: place_for_writing(transaction, checked))
            if place.delivery is not None:
                self._writer.require_room()
        received = await self._spool.receive(chunks, declared_size)
        await self.put(checked, received, principal)

    async def upload_for_run(self, run_id: str, path: str, content: bytes, principal: str | None) -> None:
        """Store a file of a run, under its root.

        Raises:
            MlflowError: as `upload` does, and when there is no such run.
        """
        checked = checked_path(path)
        folder, _ = await self._database.read(lambda transaction: run_folder(transaction, run_id))
        await self.upload(joined(folder, checked), _pieces_of(content), len(content), principal)

    async def put(self, path: str, received: Received, principal: str | None) -> None:
        """Store a file that has arrived, over what was there. The same bytes again change nothing.

        Raises:
            MlflowError: the run is deleted, or the path cannot be that of a file.
        """
        checked = checked_path(path)
        work = Work(
            lambda transaction: _put(transaction, checked, received, principal),
            size_bytes=256 + len(received.content or b""),
            rows=4,
        )
        try:
            superfluous = await self._writer.commit(work)
        except MlflowError as error:
            # Where nobody knows whether the row stands, `sweep` will.
            if received.spool_name is not None and not error.may_be_kept:
                await self._spool.remove(received.spool_name)
            raise
        if superfluous is not None:
            await self._spool.remove(superfluous)

    async def delete(self, path: str, principal: str | None) -> None:
        """Delete a file, or a folder with everything in it. What is not there is deleted already."""
        checked = checked_folder(path)
        if not checked:
            raise invalid_path()
        while True:
            deleted, spool_names = await self._writer.commit(
                Work(lambda transaction: _delete_some(transaction, checked, principal), rows=_DELETED_AT_ONCE)
            )
            for spool_name in spool_names:
                await self._spool.remove(spool_name)
            if deleted < _DELETED_AT_ONCE:
                return

    # --- finding ---

    async def find(self, path: str) -> FoundFile:
        """The file of that path.

        Raises:
            MlflowError: there is none.
        """
        checked = checked_path(path)
        here = await self._database.ask(lambda transaction: find_file_here(transaction, checked))
        if here is not None:
            return here
        return await self._database.read(lambda transaction: find_file(transaction, checked))

    async def find_for_run(self, run_id: str, path: str) -> FoundFile:
        """A file of a run."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: find_file(transaction, joined(run_folder(transaction, run_id)[0], checked))
        )

    async def find_for_model(self, model_id: str, path: str) -> FoundFile:
        """A file of a logged model."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: find_file(
                transaction, joined(model_folder(transaction, model_id)[0], checked)
            )
        )

    async def find_for_version(self, name: str, version: int, path: str) -> FoundFile:
        """A file of a model version."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: find_file(
                transaction, joined(version_folder(transaction, name, version), checked)
            )
        )

    async def list_folder(self, path: str | None) -> list[FolderEntry]:
        """What lies directly in a folder; nothing, if there is no such folder."""
        checked = checked_folder(path)
        return await self._database.read(lambda transaction: _list(transaction, checked))

    async def list_for_run(self, run_id: str, path: str | None) -> tuple[str, list[FolderEntry]]:
        """The URI of a run's root, and what lies directly in a folder below it."""
        checked = checked_folder(path)

        def find(transaction: Transaction) -> tuple[str, list[FolderEntry]]:
            folder, uri = run_folder(transaction, run_id)
            return uri, _list(transaction, joined(folder, checked))

        return await self._database.read(find)

    async def list_for_model(self, model_id: str, path: str | None) -> tuple[str, list[FolderEntry]]:
        """The URI of a logged model's root, and what lies directly in a folder below it."""
        checked = checked_folder(path)

        def find(transaction: Transaction) -> tuple[str, list[FolderEntry]]:
            folder, uri = model_folder(transaction, model_id)
            return uri, _list(transaction, joined(folder, checked))

        return await self._database.read(find)

    # --- reading ---

    async def open(
        self, found: FoundFile, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, a piece at a time. It returns when the first piece is there.

        Raises:
            MlflowError: the workspace, which alone has the bytes, cannot give them now (503).
        """
        try:
            return await _started(self._bytes_of(found, offset, length))
        except FileNotFoundError:
            # Delivered, or replaced, since it was found.
            now = await self._database.read(lambda transaction: _reread(transaction, found))
        if now is None or now.file.md5 != found.file.md5:
            raise MlflowError(
                ErrorCode.TEMPORARILY_UNAVAILABLE,
                "The artifact was replaced while it was being opened. Try again.",
                headers={"Retry-After": "1"},
            )
        return await _started(self._bytes_of(now, offset, length))

    def _bytes_of(self, found: FoundFile, offset: int, length: int | None) -> AsyncGenerator[bytes, None]:
        file = found.file
        if file.content is not None:
            end = None if length is None else offset + length
            return _pieces_of(file.content[offset:end])
        if file.spool_name is not None:
            return self._spool.open_range(file.spool_name, offset, length)
        return self._bytes_upstream(found, offset, length)

    async def _bytes_upstream(
        self, found: FoundFile, offset: int, length: int | None
    ) -> AsyncGenerator[bytes, None]:
        path, run = found.file.upstream_path, found.place.delivery
        if path is None or run is None:
            raise does_not_exist(f"The bytes of artifact '{found.file.path}' are not here any more.")
        if self._upstream is None:
            raise _only_in_the_workspace(path, "no workspace is configured")
        is_missing = length != 0
        try:
            async for chunk in self._upstream.open_read(run.run_id, path, offset, length):
                is_missing = False
                yield chunk
        except UpstreamFailure as failure:
            if failure.is_missing:
                raise does_not_exist(f"The workspace does not have artifact '{path}' any more.") from failure
            raise _only_in_the_workspace(path, "the workspace cannot be read now") from failure
        if is_missing:
            raise _only_in_the_workspace(path, "the workspace gave none of them")


def _only_in_the_workspace(path: str, why: str) -> MlflowError:
    return MlflowError(
        ErrorCode.TEMPORARILY_UNAVAILABLE,
        f"The bytes of artifact '{path}' are in the workspace only, and {why}.",
        headers={"Retry-After": "5"},
    )


async def _started(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes, the first of them already fetched, so that a failure comes before any answer."""
    first = await anext(chunks, b"")
    return _continued(first, chunks)


async def _continued(first: bytes, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for chunk in chunks:
            yield chunk
    finally:
        await chunks.aclose()


async def _pieces_of(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


# --- reading --------------------------------------------------------------------------------


def _reread(transaction: Transaction, found: FoundFile) -> FoundFile | None:
    try:
        return find_file(transaction, joined(found.place.prefix, found.place.path))
    except MlflowError:
        return None


def _list(transaction: Transaction, folder: str) -> list[FolderEntry]:
    place = place_of(transaction, folder)
    root_id = artifacts.find_root(transaction, place.prefix)
    entries = [] if root_id is None else artifacts.list_folder(transaction, root_id, place.path)
    if place.prefix:
        return entries
    known = {entry.name for entry in entries}
    roots = [
        FolderEntry(name, is_folder=True, size_bytes=None)
        for name in artifacts.list_root_folders(transaction, folder)
        if name not in known
    ]
    return sorted([*entries, *roots], key=lambda entry: entry.name) if roots else entries


# --- writing --------------------------------------------------------------------------------


def _put(transaction: Transaction, path: str, received: Received, principal: str | None) -> str | None:
    """Store the file and promise its delivery; the spooled bytes that nothing refers to any more."""
    place = place_for_writing(transaction, path)
    lane = None if place.delivery is None else ArtifactLane(transaction, place.delivery)
    root_id, current = artifacts.find_in_root(transaction, place.prefix, place.path)
    if root_id is None:
        root_id = artifacts.find_or_add_root(
            transaction, place.prefix, run_pk=place.run_pk, model_pk=place.model_pk
        )
    if current is None:
        check_is_free(transaction, root_id, place.path)
    elif (current.md5, current.size_bytes) == (received.md5, received.size_bytes):
        return received.spool_name
    file = ArtifactFile(
        place.path, received.size_bytes, received.md5, received.content, received.spool_name, None
    )
    stored = artifacts.put(transaction, root_id, file)
    if lane is None:
        transaction.run_all([stored])
    else:
        operation = UploadArtifact(
            root_id,
            place.path,
            place.upstream_path,
            received.size_bytes,
            received.md5,
            received.spool_name,
        )
        lane.append(operation, principal)
        lane.write(stored)
    return None if current is None else current.spool_name


def _delete_some(transaction: Transaction, path: str, principal: str | None) -> tuple[int, list[str]]:
    """Delete a slice; how many files it was, and the spooled bytes they had."""
    place = place_of(transaction, path)
    root_id = artifacts.find_root(transaction, place.prefix)
    if root_id is None:
        return 0, []
    lane = None if place.delivery is None else ArtifactLane(transaction, place.delivery)
    deleted = artifacts.delete_some(transaction, root_id, place.path, limit=_DELETED_AT_ONCE)
    if lane is not None:
        for deleted_path, _ in deleted:
            lane.append(DeleteArtifact(root_id, joined(place.upstream_folder, deleted_path)), principal)
        lane.write()
    return len(deleted), [name for _, name in deleted if name is not None]
