"""Bytes in and out of blob storage, through signed addresses (SAS).

A signed address is a secret that says where bytes go, so its host is checked, it never gets our token, and
it is never logged. Uploads go through azure-storage-blob in a thread, with at most two blocks of four
mebibytes in memory. Block ids follow from content and place, so that an upload that broke off goes on
where it stopped, and blocks of other content are never taken for ours.

A client may also send blocks itself, to addresses made here, which are committed when it says that all are
in place. Whoever commits a blob discards the blocks that others have staged for it.
"""

import base64
import hashlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import httpx

from server.domain import failpoints
from server.domain.verdicts import Verdict
from server.upstream.channel import USER_AGENT, trusted_ca_file
from server.upstream.failures import (
    UpstreamFailure,
    classify_transport,
    redact,
    refused_here,
    unreadable_answer,
    verdict_for,
)
from server.upstream.workspace import is_loopback_host

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

BLOCK_BYTES = 4 * 1024 * 1024
SINGLE_PUT_BYTES = 8 * 1024 * 1024
MOST_BLOCKS = 50_000
BLOCKS_IN_FLIGHT = 2
_READ_BYTES = 1024 * 1024
_API_VERSION = "2021-08-06"
_CONTENT_TYPE = "application/octet-stream"
PART_HEADERS = {"x-ms-version": _API_VERSION}
"""What goes with a block that a client puts. Without it storage follows the old version in its address."""
MISSING_BLOCKS = "InvalidBlockList"
"""Storage's word for a list with a block in it that is not there."""
_BLOB_SUFFIXES = (
    ".blob.core.windows.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.usgovcloudapi.net",
    ".blob.storage.azure.net",
)

Source = Path | bytes
Progress = Callable[[int], None]


class SasRefusedError(UpstreamFailure):
    """Storage did not accept the signed address: it has expired or does not allow this."""


class UploadStoppedError(Exception):
    """The caller went away; what was staged stays for the next try."""


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """What storage holds: size, and MD5 of the content when whoever wrote it has set one.

    `modified_ms` is when it was last written, by storage's clock, where that is told.
    """

    size_bytes: int
    md5: bytes | None
    modified_ms: int | None = field(default=None, compare=False)


def checked_blob_url(url: str, *, is_loopback: bool) -> str:
    """`url`, if it is on a host that bytes may go to: blob storage, or, for an emulator, this machine."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError as error:
        raise refused_here("storage's address is not a URL", "FOREIGN_BLOB_HOST") from error
    is_storage = parts.scheme == "https" and host.endswith(_BLOB_SUFFIXES)
    is_local = is_loopback and parts.scheme in {"http", "https"} and is_loopback_host(host)
    if not (is_storage or is_local) or "@" in parts.netloc:
        raise refused_here(f"bytes are not sent to {parts.scheme}://{host}", "FOREIGN_BLOB_HOST")
    return url


async def find_stored(http: httpx.AsyncClient, url: str) -> StoredArtifact | None:
    """What storage holds at a signed address; `None` when there is nothing."""
    try:
        response = await http.head(url, headers=_headers())
    except httpx.HTTPError as error:
        raise classify_transport(error, is_repeatable=True) from error
    if response.status_code == HTTPStatus.NOT_FOUND:
        return None
    if not response.is_success:
        raise _refusal(
            response.status_code, response.headers.get("x-ms-error-code", ""), "", is_repeatable=True
        )
    size, md5 = response.headers.get("content-length", ""), response.headers.get("content-md5", "")
    try:
        content_md5 = base64.b64decode(md5, validate=True) or None
        return StoredArtifact(int(size), content_md5, _modified_ms(response))
    except ValueError as error:
        raise unreadable_answer(f"storage tells size {size!r}, MD5 {md5!r}", is_repeatable=True) from error


def _modified_ms(response: httpx.Response) -> int | None:
    try:
        modified = parsedate_to_datetime(response.headers.get("last-modified", ""))
    except ValueError:
        return None
    return int(modified.timestamp() * 1000)


async def read_stored(
    http: httpx.AsyncClient, url: str, offset: int = 0, length: int | None = None
) -> AsyncIterator[bytes]:
    """The bytes at a signed address from `offset` on, as they come; none beyond the end."""
    headers = _headers()
    is_part = offset > 0 or length is not None
    if is_part:
        headers["range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
    if length == 0:
        return
    try:
        async with http.stream("GET", url, headers=headers) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            if not response.is_success:
                await response.aread()
                code = response.headers.get("x-ms-error-code", "")
                raise _refusal(response.status_code, code, response.text, is_repeatable=True)
            if is_part and response.status_code != HTTPStatus.PARTIAL_CONTENT:
                raise unreadable_answer("storage ignored the range", is_repeatable=True)
            async for chunk in response.aiter_raw(_READ_BYTES):
                yield chunk
    except httpx.HTTPError as error:
        raise classify_transport(error, is_repeatable=True) from error


def block_name(prefix: str, place: int) -> str:
    """A block's id before it is encoded. All ids of a blob must be of one length, so all have this form."""
    return f"{prefix}-{place:05d}"


def block_address(url: str, name: str) -> str:
    """Where a block is sent (Put Block), by whoever is given this address."""
    return f"{url}&comp=block&blockid={quote(_encoded(name), safe='')}"


async def commit_blocks(http: httpx.AsyncClient, url: str, names: Sequence[str]) -> None:
    """Make the blob of these blocks, in this order (Put Block List). Safe to repeat.

    Raises:
        UpstreamFailure: with the code `MISSING_BLOCKS` when one of them is not in place.
    """
    listed = "".join(f"<Latest>{_encoded(name)}</Latest>" for name in names)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
    headers = {**_headers(), "content-type": "application/xml", "x-ms-blob-content-type": _CONTENT_TYPE}
    try:
        response = await http.put(f"{url}&comp=blocklist", content=body.encode(), headers=headers)
    except httpx.HTTPError as error:
        raise classify_transport(error, is_repeatable=True) from error
    if not response.is_success:
        code = response.headers.get("x-ms-error-code", "")
        raise _refusal(response.status_code, code, response.text, is_repeatable=True)


def _encoded(name: str) -> str:
    return base64.b64encode(name.encode()).decode()


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload, run in a thread. `url` may be replaced by a fresh signed address between two runs."""

    source: Source
    size_bytes: int
    md5: bytes
    progress: Progress
    stop: threading.Event

    def run(self, url: str) -> None:
        """Put all of it in place; blocks. Repeated, it sends what is still missing.

        Raises:
            SasRefusedError: Run again with a fresh address.
            UpstreamFailure: RETRY while nothing can have been committed, else UNCERTAIN; PARK when the
                source is not what it should be.
            UploadStoppedError: `stop` was set.
        """
        with _opened(self.source) as read, _blob_client(url, self._before_request) as client:
            if self.size_bytes <= SINGLE_PUT_BYTES:
                self._put(client, read)
            else:
                self._put_blocks(client, read)

    def _before_request(self, request: object) -> None:
        """Send nothing more once the caller has gone away, not even a request tried again."""
        if self.stop.is_set():
            raise UploadStoppedError

    def _put(self, client: "BlobClient", read: "_Read") -> None:
        content = read(0, self.size_bytes + 1)
        self._check_source(len(content), hashlib.md5(content, usedforsecurity=False).digest())
        with _classified(is_commit=True):
            client.upload_blob(
                content,
                length=len(content),
                overwrite=True,
                max_concurrency=1,
                validate_content=True,
                content_settings=self._settings(),
            )
        failpoints.reach("upload.committed")
        self.progress(self.size_bytes)

    def _put_blocks(self, client: "BlobClient", read: "_Read") -> None:
        try:
            self._stage_and_commit(client, read)
        except UpstreamFailure as failure:
            if failure.code != MISSING_BLOCKS:
                raise
            # Storage let go of blocks that it had taken: somebody else committed the blob meanwhile.
            self._stage_and_commit(client, read)

    def _stage_and_commit(self, client: "BlobClient", read: "_Read") -> None:
        staged = _staged_sizes(client)
        block_bytes = max(BLOCK_BYTES, -(-self.size_bytes // MOST_BLOCKS))
        digest = hashlib.md5(usedforsecurity=False)
        in_flight: deque[Future[int]] = deque()
        block_ids: list[str] = []
        done = 0
        with ThreadPoolExecutor(BLOCKS_IN_FLIGHT, thread_name_prefix="upstream-block") as pool:
            for offset in range(0, self.size_bytes, block_bytes):
                if self.stop.is_set():
                    raise UploadStoppedError
                if len(in_flight) >= BLOCKS_IN_FLIGHT:
                    done += in_flight.popleft().result()
                    self.progress(done)
                block = read(offset, block_bytes)
                digest.update(block)
                block_ids.append(block_name(self.md5.hex(), len(block_ids)))
                if staged.get(block_ids[-1]) == len(block):
                    done += len(block)
                    continue
                in_flight.append(pool.submit(_stage, client, block_ids[-1], block))
            for pending in in_flight:
                done += pending.result()
                self.progress(done)
        self._check_source(done + len(read(self.size_bytes, 1)), digest.digest())
        self._commit(client, block_ids)

    def _commit(self, client: "BlobClient", block_ids: list[str]) -> None:
        from azure.storage.blob import BlobBlock

        failpoints.reach("upload.blocks_sent")
        with _classified(is_commit=True):
            client.commit_block_list(
                [BlobBlock(block_id=block_id) for block_id in block_ids], content_settings=self._settings()
            )
        failpoints.reach("upload.committed")
        self.progress(self.size_bytes)

    def _check_source(self, size_bytes: int, md5: bytes) -> None:
        if (size_bytes, md5) != (self.size_bytes, self.md5):
            raise refused_here("the bytes kept here are not the bytes that were accepted", "SOURCE_CHANGED")

    def _settings(self) -> Any:
        from azure.storage.blob import ContentSettings

        return ContentSettings(content_type=_CONTENT_TYPE, content_md5=bytearray(self.md5))


_Read = Callable[[int, int], bytes]


@contextmanager
def _opened(source: Source) -> Iterator[_Read]:
    if isinstance(source, bytes):
        yield lambda offset, size: source[offset : offset + size]
        return
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield lambda offset, size: os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _blob_client(url: str, before_request: Callable[[object], None]) -> "BlobClient":
    from azure.storage.blob import BlobClient, LinearRetry

    options: dict[str, Any] = {"connection_timeout": 10, "read_timeout": 60, "user_agent": USER_AGENT}
    if (ca := trusted_ca_file()) is not None:
        options["connection_verify"] = ca
    if is_loopback_host(urlsplit(url).hostname or ""):
        options["use_env_settings"] = False
    return BlobClient.from_blob_url(
        url,
        retry_policy=LinearRetry(backoff=1, retry_total=2, random_jitter_range=1),
        max_single_put_size=SINGLE_PUT_BYTES,
        max_block_size=BLOCK_BYTES,
        raw_request_hook=before_request,
        **options,
    )


def _staged_sizes(client: "BlobClient") -> dict[str, int]:
    """Sizes of the blocks that wait uncommitted. Not knowing only costs sending them again."""
    from azure.core.exceptions import AzureError

    try:
        _, uncommitted = client.get_block_list("uncommitted")
    except AzureError:
        return {}
    return {block.id: block.size for block in uncommitted}


def _stage(client: "BlobClient", block_id: str, block: bytes) -> int:
    with _classified(is_commit=False):
        client.stage_block(block_id, block, length=len(block), validate_content=True)
    failpoints.reach("upload.block_sent")
    return len(block)


@contextmanager
def _classified(*, is_commit: bool) -> Iterator[None]:
    """Azure's exceptions as failures. A staged block shows only once committed, so it is never UNCERTAIN.

    The originals are not chained: their texts hold the signed address.
    """
    from azure.core.exceptions import (
        AzureError,
        HttpResponseError,
        ServiceRequestError,
    )

    try:
        yield
    except HttpResponseError as error:
        code = getattr(error, "error_code", None) or ""
        code = str(getattr(code, "value", code))  # of the library's enumeration, where it knows the code
        raise _refusal(error.status_code or 0, code, error.message, is_repeatable=not is_commit) from None
    except ServiceRequestError as error:
        raise UpstreamFailure(Verdict.RETRY, "CONNECTION_FAILED", str(error)) from None
    except AzureError as error:
        verdict = Verdict.UNCERTAIN if is_commit else Verdict.RETRY
        raise UpstreamFailure(verdict, "CONNECTION_LOST", str(error)) from None


def _refusal(status: int, code: str, message: str, *, is_repeatable: bool) -> UpstreamFailure:
    """Storage's refusal. 401 and 403 are about the signed address, which can be had anew."""
    words = redact(message) or f"storage answered HTTP {status} {code}".rstrip()
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return SasRefusedError(Verdict.WAIT, code or "SAS_REFUSED", words, status=status)
    verdict = verdict_for(status, code, "", is_repeatable=is_repeatable)
    if code == MISSING_BLOCKS:
        # Another's commit has discarded what was staged; it can be staged anew.
        verdict = Verdict.RETRY
    return UpstreamFailure(verdict, code or f"BLOB_{status}", words, status=status)


def _headers() -> dict[str, str]:
    return {"x-ms-version": _API_VERSION, "user-agent": USER_AGENT, "accept-encoding": "identity"}
