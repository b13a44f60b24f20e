"""Artifacts of the workspace's runs.

Metadata first, then bytes: the workspace lists what was registered, not what lies in storage. A path is
registered once and for all, so writing it again needs another address (`overwrite_target`). What an upload
leaves is verified by size and MD5; only then may the bytes be given up here.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from server.domain import failpoints
from server.domain.verdicts import Verdict
from server.upstream.answers import read_answer
from server.upstream.blobs import (
    Progress,
    SasRefusedError,
    Source,
    StoredArtifact,
    Upload,
    checked_blob_url,
    commit_blocks,
    find_stored,
    read_stored,
)
from server.upstream.connection import Connection
from server.upstream.failures import (
    DOES_NOT_EXIST,
    UpstreamFailure,
    unreadable_answer,
    verdict_for,
)
from server.upstream.segments import checked_artifact_path, checked_run_id, path_segment, run_segment

_ADDRESSES_PER_UPLOAD = 3
_UPLOADS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """A signed address that takes the bytes of one artifact. `is_new`: the path was free until now."""

    content_uri: str = field(repr=False)
    is_new: bool


class _Content(msgspec.Struct):
    contentUri: str  # noqa: N815 - the wire's name


class _RootError(msgspec.Struct):
    code: str | None = ""
    message: str | None = ""


class _PathError(msgspec.Struct):
    error: _RootError


class _Registered(msgspec.Struct):
    artifactContentInformation: dict[str, _Content] | None = None  # noqa: N815 - the wire's name
    errors: dict[str, _PathError] | None = None


class _Artifact(msgspec.Struct):
    path: str


class _Listing(msgspec.Struct):
    value: list[_Artifact] = []
    nextLink: str | None = None  # noqa: N815 - the wire's name


class UpstreamArtifacts:
    """Calls about run artifacts. `experiment` is the experiment's id or name in the workspace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._threads = ThreadPoolExecutor(_UPLOADS_AT_ONCE, thread_name_prefix="upstream-upload")

    async def register(self, experiment: str, run_id: str, path: str) -> WriteTarget:
        """An address to write the artifact to; for a path that is taken, one that overwrites."""
        answer = await self._connection.request(
            "POST",
            f"{self._run_url(experiment, run_id)}/batch/metadata",
            json={"paths": [{"path": checked_artifact_path(path)}]},
            route="artifacts/batch/metadata",
            is_repeatable=True,
        )
        registered = read_answer(answer, _Registered, is_repeatable=True)
        refusal = (registered.errors or {}).get(path)
        if refusal is not None:
            return await self._after_refusal(run_id, path, refusal.error)
        content = (registered.artifactContentInformation or {}).get(path)
        if content is None:
            raise unreadable_answer("no address for the registered artifact", is_repeatable=True)
        return WriteTarget(self._blob_url(content), is_new=True)

    async def overwrite_target(self, run_id: str, path: str) -> WriteTarget:
        """An address to write to an artifact that exists."""
        answer = await self._connection.request(
            "GET",
            f"{self._container_url(run_id)}/write",
            params={"path": checked_artifact_path(path)},
            route="artifacts/write",
        )
        return WriteTarget(self._blob_url(read_answer(answer, _Content, is_repeatable=True)), is_new=False)

    async def info(self, experiment: str, run_id: str, path: str) -> StoredArtifact | None:
        """What storage holds of the artifact; `None` when it is not registered or has no bytes yet."""
        url = await self._read_url(experiment, run_id, path)
        return None if url is None else await find_stored(self._connection.http, url)

    async def list_paths(self, experiment: str, run_id: str) -> list[str]:
        """The paths of all artifacts of the run, sorted."""
        paths: list[str] = []
        url: str | None = self._run_url(experiment, run_id)
        while url:
            answer = await self._connection.request("GET", url, route="artifacts")
            page = read_answer(answer, _Listing, is_repeatable=True)
            paths += [artifact.path for artifact in page.value]
            url = page.nextLink
        return sorted(paths)

    async def upload(
        self,
        experiment: str,
        run_id: str,
        path: str,
        source: Source,
        size_bytes: int,
        md5: bytes,
        progress: Progress | None = None,
    ) -> StoredArtifact:
        """Make the artifact hold exactly `source`; what storage then holds, verified.

        Safe to repeat: the same content is left alone, other content is replaced, and an upload that broke
        off goes on. `progress` is told, on this loop, how many bytes are in place.
        """
        wanted = StoredArtifact(size_bytes, md5)
        target = await self.register(experiment, run_id, path)
        failpoints.reach("upload.registered")
        if not target.is_new and await self.info(experiment, run_id, path) == wanted:
            return wanted
        try:
            await self._send(target, run_id, path, wanted, source, progress)
        except UpstreamFailure as failure:
            if failure.verdict is not Verdict.UNCERTAIN:
                raise
            with suppress(UpstreamFailure):
                if await self.info(experiment, run_id, path) == wanted:
                    return wanted
            raise
        stored = await self.info(experiment, run_id, path)
        if stored != wanted:
            raise UpstreamFailure(
                Verdict.UNCERTAIN, "CONTENT_DIFFERS", f"storage holds {stored}, sent was {wanted}"
            )
        return wanted

    async def open_read(
        self, experiment: str, run_id: str, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The artifact's bytes from `offset` on, as storage sends them.

        Raises:
            UpstreamFailure: With `is_missing` when there is no such artifact.
        """
        url = await self.read_address(experiment, run_id, path)
        async for chunk in read_stored(self._connection.http, url, offset, length):
            yield chunk

    async def read_address(self, experiment: str, run_id: str, path: str) -> str:
        """A signed address of the artifact's bytes. The workspace sets how long it is good, some hours.

        Raises:
            UpstreamFailure: With `is_missing` when there is no such artifact.
        """
        url = await self._read_url(experiment, run_id, path)
        if url is None:
            raise UpstreamFailure(
                Verdict.PARK, DOES_NOT_EXIST, f"no artifact {path!r} in run {run_id}", status=404
            )
        return url

    async def commit_blocks(
        self, experiment: str, run_id: str, path: str, names: Sequence[str]
    ) -> StoredArtifact:
        """Make the registered artifact of blocks that others have put in place; what storage then holds.

        Safe to repeat.

        Raises:
            UpstreamFailure: With the code `MISSING_BLOCKS` when one of them is not there.
        """
        target = await self.overwrite_target(run_id, path)
        await commit_blocks(self._connection.http, target.content_uri, names)
        stored = await self.info(experiment, run_id, path)
        if stored is None:
            raise UpstreamFailure(
                Verdict.UNCERTAIN, "NOT_STORED", f"storage does not have {path!r} after its commit"
            )
        return stored

    async def delete(self, run_id: str, path: str) -> None:
        """Delete the artifact with its bytes; one that is gone already is fine."""
        try:
            await self._connection.request(
                "DELETE",
                f"{self._container_url(run_id)}/metadata",
                params={"path": checked_artifact_path(path), "hardDelete": "true"},
                route="artifacts/metadata",
                expects_answer=False,
            )
        except UpstreamFailure as failure:
            if not failure.is_missing:
                raise

    async def aclose(self) -> None:
        """Let go of the upload threads. Cancel the uploads first."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _after_refusal(self, run_id: str, path: str, refusal: _RootError) -> WriteTarget:
        code, message = refusal.code or "", refusal.message or ""
        verdict = verdict_for(HTTPStatus.BAD_REQUEST, code, message)
        if verdict is Verdict.ALREADY_APPLIED:
            return await self.overwrite_target(run_id, path)
        raise UpstreamFailure(verdict, code or "ARTIFACT_REFUSED", message, status=HTTPStatus.BAD_REQUEST)

    async def _send(
        self,
        target: WriteTarget,
        run_id: str,
        path: str,
        wanted: StoredArtifact,
        source: Source,
        progress: Progress | None,
    ) -> None:
        for is_last in [False] * (_ADDRESSES_PER_UPLOAD - 1) + [True]:
            try:
                await self._send_once(target, wanted, source, progress)
            except SasRefusedError:
                if is_last:
                    raise
                target = await self.overwrite_target(run_id, path)
            else:
                return

    async def _send_once(
        self, target: WriteTarget, wanted: StoredArtifact, source: Source, progress: Progress | None
    ) -> None:
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def tell(done_bytes: int) -> None:
            if progress is not None and not stop.is_set():
                loop.call_soon_threadsafe(progress, done_bytes)

        upload = Upload(source, wanted.size_bytes, wanted.md5 or b"", tell, stop)
        try:
            await loop.run_in_executor(self._threads, upload.run, target.content_uri)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def _read_url(self, experiment: str, run_id: str, path: str) -> str | None:
        try:
            answer = await self._connection.request(
                "GET",
                f"{self._run_url(experiment, run_id)}/contentinfo",
                params={"path": checked_artifact_path(path)},
                route="artifacts/contentinfo",
            )
        except UpstreamFailure as failure:
            if failure.is_missing:
                return None
            raise
        return self._blob_url(read_answer(answer, _Content, is_repeatable=True))

    def _blob_url(self, content: _Content) -> str:
        return checked_blob_url(content.contentUri, is_loopback=self._connection.address.is_loopback)

    def _run_url(self, experiment: str, run_id: str) -> str:
        base = self._connection.address.history_url
        return f"{base}/experiments/{path_segment(experiment)}/runs/{run_segment(run_id)}/artifacts"

    def _container_url(self, run_id: str) -> str:
        base = self._connection.address.artifact_url
        return f"{base}/artifacts/ExperimentRun/dcid.{checked_run_id(run_id)}"
