"""Artifacts: files of runs, of logged models, and of anything else a client keeps here.

A file of a run, or of a logged model that a run made, is also delivered to the run's folder in the
workspace, in the order of its lane. Everything else is kept here only.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import ErrorCode, MlflowError, does_not_exist, invalid_parameter
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.journal.entries import Awaited, append_entry
from server.journal.lanes import is_settled, lock_lanes
from server.protocol.artifacts import (
    checked_folder,
    checked_path,
    invalid_path,
    possible_addresses,
    prefix_of_uri,
)
from server.services.identity import get_run, require_active_run
from server.spool.spool import INLINE_LIMIT, Received, Spool
from server.store import artifacts, runs
from server.store.artifacts import ArtifactFile, FolderEntry
from server.store.runs import RunLanes
from server.upstream.failures import UpstreamFailure

_CREATE_POSITION = 1
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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path leads: a root, a path in it, and the run whose folder in the workspace it belongs to."""

    prefix: str
    path: str
    run_pk: int | None = None
    model_pk: int | None = None
    delivery: RunLanes | None = None
    upstream_folder: str = ""

    @property
    def upstream_path(self) -> str:
        """The path under the run in the workspace."""
        return f"{self.upstream_folder}/{self.path}" if self.upstream_folder else self.path


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be read."""

    place: Place
    file: ArtifactFile

    @property
    def name(self) -> str:
        """The last segment of its path."""
        return self.file.path.rpartition("/")[2]


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
            MlflowError: the path cannot be written to, or the bytes do not fit (507).
        """
        checked = checked_path(path)
        if declared_size is None or declared_size > INLINE_LIMIT:
            await self._database.read(lambda transaction: _place_for_writing(transaction, checked))
        received = await self._spool.receive(chunks, declared_size)
        await self.put(checked, received, principal)

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
            # After any other failure nobody knows whether the row stands: `sweep` will.
            if received.spool_name is not None and error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
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
        return await self._database.read(lambda transaction: _find(transaction, checked))

    async def find_for_run(self, run_id: str, path: str) -> FoundFile:
        """A file of a run."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: _find(transaction, _joined(_run_folder(transaction, run_id)[0], checked))
        )

    async def find_for_model(self, model_id: str, path: str) -> FoundFile:
        """A file of a logged model."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: _find(transaction, _joined(_model_folder(transaction, model_id)[0], checked))
        )

    async def find_for_version(self, name: str, version: int, path: str) -> FoundFile:
        """A file of a model version."""
        checked = checked_path(path)
        return await self._database.read(
            lambda transaction: _find(
                transaction, _joined(_version_folder(transaction, name, version), checked)
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
            folder, uri = _run_folder(transaction, run_id)
            return uri, _list(transaction, _joined(folder, checked))

        return await self._database.read(find)

    async def list_for_model(self, model_id: str, path: str | None) -> tuple[str, list[FolderEntry]]:
        """The URI of a logged model's root, and what lies directly in a folder below it."""
        checked = checked_folder(path)

        def find(transaction: Transaction) -> tuple[str, list[FolderEntry]]:
            folder, uri = _model_folder(transaction, model_id)
            return uri, _list(transaction, _joined(folder, checked))

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


# --- places ---------------------------------------------------------------------------------


def _place_of(transaction: Transaction, path: str) -> Place:
    """Where a path leads. A run or a logged model owns a folder if it says so itself."""
    for address in possible_addresses(path):
        if address.owner_id is None:
            continue
        run = runs.find_info(transaction, address.owner_id)
        if run is not None and prefix_of_uri(run.artifact_uri) == address.prefix:
            lanes = runs.find_lanes(transaction, run.run_id)
            return Place(address.prefix, address.path, run_pk=run.run_pk, delivery=lanes)
        model = artifacts.find_model_folder(transaction, address.owner_id)
        if model is not None and prefix_of_uri(model.artifact_uri) == address.prefix:
            lanes = None
            if model.source_run_id and model.upstream_folder:
                lanes = runs.find_lanes(transaction, model.source_run_id)
            return Place(
                address.prefix,
                address.path,
                model_pk=model.model_pk,
                delivery=lanes,
                upstream_folder=model.upstream_folder or "",
            )
    return Place("", path)


def _run_folder(transaction: Transaction, run_id: str) -> tuple[str, str]:
    uri = get_run(transaction, run_id).artifact_uri
    return _folder_of(uri), uri


def _model_folder(transaction: Transaction, model_id: str) -> tuple[str, str]:
    model = artifacts.find_model_folder(transaction, model_id)
    if model is None:
        raise does_not_exist(f"Logged model with ID '{model_id}' not found.")
    return _folder_of(model.artifact_uri), model.artifact_uri


def _version_folder(transaction: Transaction, name: str, version: int) -> str:
    uri = artifacts.find_version_uri(transaction, name, version)
    if uri is None:
        raise does_not_exist(f"Model Version (name={name}, version={version}) not found")
    scheme, _, rest = uri.partition(":")
    owner_id, _, folder = rest.strip("/").partition("/")
    if scheme == "runs":
        return _joined(_run_folder(transaction, owner_id)[0], checked_folder(folder))
    if scheme == "models" and not folder:
        return _model_folder(transaction, owner_id)[0]
    return _folder_of(uri)


def _folder_of(uri: str) -> str:
    folder = prefix_of_uri(uri)
    if folder is None:
        raise invalid_parameter(f"The artifacts under '{uri}' are not kept by this server.")
    return checked_folder(folder)


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder and path else folder or path


# --- reading --------------------------------------------------------------------------------


def _find(transaction: Transaction, path: str) -> FoundFile:
    place = _place_of(transaction, path)
    root_id = artifacts.find_root(transaction, place.prefix)
    file = None if root_id is None else artifacts.find(transaction, root_id, place.path)
    if file is not None:
        return FoundFile(place, file)
    if root_id is not None and artifacts.is_folder(transaction, root_id, place.path):
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    raise does_not_exist(f"No such artifact: '{path}'")


def _reread(transaction: Transaction, found: FoundFile) -> FoundFile | None:
    root_id = artifacts.find_root(transaction, found.place.prefix)
    file = None if root_id is None else artifacts.find(transaction, root_id, found.place.path)
    return None if file is None else FoundFile(found.place, file)


def _list(transaction: Transaction, folder: str) -> list[FolderEntry]:
    place = _place_of(transaction, folder)
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


def _place_for_writing(transaction: Transaction, path: str) -> Place:
    place = _place_of(transaction, path)
    if not place.path:
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    if place.run_pk is not None and place.delivery is not None:
        require_active_run(place.delivery)
    return place


def _put(transaction: Transaction, path: str, received: Received, principal: str | None) -> str | None:
    """Store the file and promise its delivery; the spooled bytes that nothing refers to any more."""
    place = _place_for_writing(transaction, path)
    root_id = artifacts.find_or_add_root(
        transaction, place.prefix, run_pk=place.run_pk, model_pk=place.model_pk
    )
    current = artifacts.find(transaction, root_id, place.path)
    if current is None:
        _check_is_free(transaction, root_id, place.path)
    elif (current.md5, current.size_bytes) == (received.md5, received.size_bytes):
        return received.spool_name
    replaced = artifacts.put(
        transaction,
        root_id,
        ArtifactFile(
            place.path, received.size_bytes, received.md5, received.content, received.spool_name, None
        ),
    )
    if place.delivery is not None:
        operation = UploadArtifact(
            root_id,
            place.path,
            place.upstream_path,
            received.size_bytes,
            received.md5,
            received.spool_name,
        )
        _append(transaction, place.delivery, operation, principal)
    return replaced


def _check_is_free(transaction: Transaction, root_id: int, path: str) -> None:
    """A name cannot be a file and a folder, or nobody could download both."""
    if artifacts.is_folder(transaction, root_id, path):
        raise invalid_parameter(f"Artifact path refers to a directory, not a file: '{path}'")
    above = artifacts.find_file_above(transaction, root_id, path)
    if above is not None:
        raise invalid_parameter(f"Artifact path '{path}' leads through '{above}', which is a file.")


def _delete_some(transaction: Transaction, path: str, principal: str | None) -> tuple[int, list[str]]:
    """Delete a slice; how many files it was, and the spooled bytes they had."""
    place = _place_of(transaction, path)
    root_id = artifacts.find_root(transaction, place.prefix)
    if root_id is None:
        return 0, []
    deleted = artifacts.delete_some(transaction, root_id, place.path, limit=_DELETED_AT_ONCE)
    if place.delivery is not None:
        for deleted_path, _ in deleted:
            upstream_path = _joined(place.upstream_folder, deleted_path)
            _append(transaction, place.delivery, DeleteArtifact(root_id, upstream_path), principal)
    return len(deleted), [name for _, name in deleted if name is not None]


def _append(
    transaction: Transaction, run: RunLanes, operation: UploadArtifact | DeleteArtifact, principal: str | None
) -> None:
    """Put an entry on the run's artifact lane, whose first entry waits until the run is made."""
    is_first = not lock_lanes(transaction, [run.artifact_lane])[run.artifact_lane]
    awaits = []
    if is_first and not is_settled(transaction, run.data_lane, _CREATE_POSITION):
        awaits.append(Awaited(run.data_lane, _CREATE_POSITION))
    append_entry(transaction, run.artifact_lane, operation, principal=principal, awaits=awaits)
