"""Artifacts whose bytes go between the client and the workspace's storage directly.

Only where it keeps every promise: a file is in the store from the moment its blocks are committed and found
in storage, and only then is its upload acknowledged, so a read finds it and a status that follows cannot
overtake it. Every other case is refused in words at which clients stream through the proxy: the run or its
experiment is not in the workspace yet, the path is taken here, or something about it is still on its way
there; nobody else writes a path that an upload is completed to.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.errors import ErrorCode, MlflowError, does_not_exist, invalid_parameter
from server.domain.operations import DeleteArtifact, UploadArtifact
from server.journal.contents import read_range
from server.journal.lanes import is_settled
from server.journal.leases import read_lane
from server.protocol.artifacts import checked_path
from server.protocol.direct_artifacts import no_multipart
from server.services.artifact_places import (
    CREATE_POSITION,
    ArtifactLane,
    FoundFile,
    Place,
    check_is_free,
    find_file,
    place_for_writing,
    place_of,
)
from server.store import artifacts, direct_uploads
from server.store.artifacts import ArtifactFile
from server.store.direct_uploads import DirectUpload
from server.store.runs import RunLanes
from server.upstream.artifacts import WriteTarget
from server.upstream.blobs import (
    MISSING_BLOCKS,
    MOST_BLOCKS,
    PART_HEADERS,
    StoredArtifact,
    block_address,
    block_name,
)
from server.upstream.failures import UpstreamFailure

_PATIENCE_SECONDS = 5.0
_ABANDONED_AFTER = timedelta(days=1)
_SWEPT_AT_ONCE = 20
_MOST_PENDING = 1_000


class DirectStorage(Protocol):
    """Our runs' files in the workspace's storage; `run_id` is ours. All of it may raise `UpstreamFailure`."""

    async def read_address(self, run_id: str, upstream_path: str) -> str:
        """A signed address that gives a file's bytes."""
        ...

    async def register(self, run_id: str, upstream_path: str) -> WriteTarget:
        """A signed address that takes a file's bytes."""
        ...

    async def commit_blocks(self, run_id: str, upstream_path: str, names: Sequence[str]) -> StoredArtifact:
        """Make a file of blocks that are in place; what storage then holds."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedUpload:
    """An upload that has begun: where each of its parts is put, and with which headers."""

    upload_id: str
    addresses: list[str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: PART_HEADERS)


class DirectArtifacts:
    """Uploads and downloads past the proxy. Without `storage` there are none."""

    def __init__(self, *, database: Database, writer: Writer, storage: DirectStorage | None) -> None:
        self._database = database
        self._writer = writer
        self._storage = storage

    @property
    def is_offered(self) -> bool:
        """Whether clients may try."""
        return self._storage is not None

    # --- downloads ---

    async def read_address(self, found: FoundFile) -> str | None:
        """A signed address of a file; None where its bytes are here, or the workspace gives none now."""
        path, run = found.file.upstream_path, found.place.delivery
        if self._storage is None or path is None or run is None or found.file.is_here:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await self._storage.read_address(run.run_id, path)
        except (UpstreamFailure, TimeoutError):
            return None

    # --- uploads ---

    async def create(self, path: str, parts: int, principal: str | None) -> OpenedUpload:
        """Begin an upload of so many parts.

        Raises:
            MlflowError: 501 where the file has to be streamed; as for any upload, when it cannot go there.
        """
        checked = checked_path(path)
        if self._storage is None or not 1 <= parts <= MOST_BLOCKS:
            raise no_multipart()
        place = await self._database.read(lambda transaction: _direct_place(transaction, checked))
        if place is None or place.delivery is None:
            raise no_multipart()
        run_id = place.delivery.run_id
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                target = await self._storage.register(run_id, place.upstream_path)
        except (UpstreamFailure, TimeoutError) as error:
            raise no_multipart() from error
        upload = DirectUpload(
            uuid4().hex, checked, run_id, place.upstream_path, parts, target.is_new, principal
        )
        if not await self._writer.commit(Work(lambda transaction: _open(transaction, upload), rows=2)):
            raise no_multipart()
        return OpenedUpload(
            upload.upload_id, [block_address(target.content_uri, name) for name in _block_names(upload)]
        )

    async def complete(self, path: str, upload_id: str, part_numbers: Sequence[int]) -> None:
        """Make the file of its parts, and store it. Safe to repeat.

        Raises:
            MlflowError: parts are missing, the path was written otherwise meanwhile, or the workspace
                cannot be reached, in which case it may be tried again (503).
        """
        checked = checked_path(path)
        upload = await self._database.read(lambda transaction: _find_upload(transaction, upload_id, checked))
        if upload is None:
            return  # completed already; that answer was lost
        if self._storage is None:
            raise no_multipart()
        if sorted(part_numbers) != list(range(1, upload.parts + 1)):
            raise invalid_parameter(f"The upload has the parts 1 to {upload.parts}; all of them are needed.")
        await self._database.read(lambda transaction: _require_direct(transaction, upload))
        try:
            stored = await self._storage.commit_blocks(
                upload.run_id, upload.upstream_path, _block_names(upload)
            )
        except UpstreamFailure as failure:
            if failure.code == MISSING_BLOCKS or failure.is_missing:
                raise invalid_parameter("Not all parts of the upload are in place.") from failure
            raise MlflowError(
                ErrorCode.TEMPORARILY_UNAVAILABLE,
                "The workspace cannot complete the upload now. Try again.",
                headers={"Retry-After": "2"},
            ) from failure
        failpoints.reach("direct_upload.committed")
        await self._writer.commit(Work(lambda transaction: _finish(transaction, upload, stored), rows=4))

    async def abort(self, path: str, upload_id: str) -> None:
        """Give an upload up. One that has ended changes nothing."""
        checked = checked_path(path)

        def apply(transaction: Transaction) -> None:
            upload = direct_uploads.find(transaction, upload_id)
            if upload is not None and upload.path == checked:
                _give_up(transaction, upload)

        await self._writer.commit(Work(apply, rows=2))


def _block_names(upload: DirectUpload) -> list[str]:
    return [block_name(upload.upload_id, part) for part in range(1, upload.parts + 1)]


def _identity(upload_id: str) -> bytes:
    """What stands for the MD5 of a file that nobody here has read."""
    return hashlib.md5(upload_id.encode(), usedforsecurity=False).digest()


# --- inside of a transaction ----------------------------------------------------------------


def _direct_place(transaction: Transaction, path: str) -> Place | None:
    """Where the file goes, if it may be written past the proxy: nothing is there, nor on its way there.

    Raises:
        MlflowError: it cannot be written at all.
    """
    place = place_for_writing(transaction, path)
    run = place.delivery
    if run is None or not is_settled(transaction, run.data_lane, CREATE_POSITION):
        return None
    root_id, file = artifacts.find_in_root(transaction, place.prefix, place.path)
    if file is not None:
        return None
    if root_id is not None:
        check_is_free(transaction, root_id, place.path)
    return None if _is_on_its_way(transaction, run, place.upstream_path) else place


def _is_on_its_way(transaction: Transaction, run: RunLanes, upstream_path: str) -> bool:
    """Whether the run's lane may still write or delete this path."""
    lane = read_lane(transaction, run.artifact_lane)
    if lane.last_position - lane.settled_position > _MOST_PENDING:
        return True
    pending = read_range(
        transaction, lane.lane_id, lane.settled_position + 1, lane.last_position, limit=_MOST_PENDING
    )
    for entry in pending.entries:
        match entry.operation:
            case UploadArtifact() | DeleteArtifact() as operation:
                if operation.upstream_path == upstream_path:
                    return True
            case _:
                return True
    return False


def _open(transaction: Transaction, upload: DirectUpload) -> bool:
    """Note the upload, unless its path was taken meanwhile. Those that nobody went on with are given up."""
    before_ms = transaction.now_ms - int(_ABANDONED_AFTER.total_seconds() * 1000)
    for abandoned in direct_uploads.list_abandoned(transaction, before_ms=before_ms, limit=_SWEPT_AT_ONCE):
        _give_up(transaction, abandoned)
    place = _direct_place(transaction, upload.path)
    if place is None or place.upstream_path != upload.upstream_path:
        return False
    direct_uploads.insert(transaction, upload)
    return True


def _find_upload(transaction: Transaction, upload_id: str, path: str) -> DirectUpload | None:
    """The upload; None if it is complete.

    Raises:
        MlflowError: there is no such upload of this file.
    """
    upload = direct_uploads.find(transaction, upload_id)
    if upload is not None and upload.path == path:
        return upload
    if upload is None and _is_completed(transaction, upload_id, path):
        return None
    raise does_not_exist(f"There is no multipart upload '{upload_id}' of '{path}'.")


def _is_completed(transaction: Transaction, upload_id: str, path: str) -> bool:
    try:
        return find_file(transaction, path).file.md5 == _identity(upload_id)
    except MlflowError:
        return False


def _require_direct(transaction: Transaction, upload: DirectUpload) -> Place:
    """Where the file goes.

    Raises:
        MlflowError: its path was written otherwise since the upload began.
    """
    place = _direct_place(transaction, upload.path)
    if place is None or place.upstream_path != upload.upstream_path:
        raise MlflowError(
            ErrorCode.RESOURCE_CONFLICT, f"'{upload.path}' was written otherwise during its multipart upload."
        )
    return place


def _finish(transaction: Transaction, upload: DirectUpload, stored: StoredArtifact) -> None:
    """Store the file that is in the workspace, unless another's answer has done so."""
    if _find_upload(transaction, upload.upload_id, upload.path) is None:
        return
    place = _require_direct(transaction, upload)
    root_id = artifacts.find_or_add_root(
        transaction, place.prefix, run_pk=place.run_pk, model_pk=place.model_pk
    )
    file = ArtifactFile(
        place.path, stored.size_bytes, _identity(upload.upload_id), None, None, upload.upstream_path
    )
    transaction.run_all([artifacts.put(transaction, root_id, file)])
    direct_uploads.delete(transaction, upload.upload_id)


def _give_up(transaction: Transaction, upload: DirectUpload) -> None:
    """Forget an upload; what the workspace lists because of it goes, unless the path has become another's."""
    direct_uploads.delete(transaction, upload.upload_id)
    place = place_of(transaction, upload.path)
    run = place.delivery
    if not upload.is_new or run is None or place.upstream_path != upload.upstream_path:
        return
    root_id = artifacts.find_or_add_root(
        transaction, place.prefix, run_pk=place.run_pk, model_pk=place.model_pk
    )
    is_taken = artifacts.find(transaction, root_id, place.path) is not None
    if is_taken or direct_uploads.is_awaited(transaction, upload.path):
        return
    lane = ArtifactLane(transaction, run)
    lane.append(DeleteArtifact(root_id, upload.upstream_path), upload.principal)
    lane.write()
