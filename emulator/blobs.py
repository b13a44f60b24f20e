"""The blob endpoint: the part of the storage REST interface that artifact clients use [D][W].

Bodies are streamed in both directions. A blob appears whole or not at all: bytes go to a file nobody
sees, and a row names it when the last one has arrived and every condition still holds.
"""

import asyncio
import base64
import hashlib
import json
import re
import uuid
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from emulator.blob_store import ACCOUNT, CHUNK_BYTES, CONTAINER, FileBlobs, join_files
from emulator.errors import StorageError
from emulator.store import Store

VERSION = "2025-11-05"
COMMITTED = 1
UNCOMMITTED = 0


def routes(store: Store, blobs: FileBlobs) -> list[Route]:
    """One address per blob, with the account in the path and without."""
    endpoint = Blobs(store, blobs)
    methods = ["GET", "HEAD", "PUT", "DELETE"]
    return [
        Route(f"{account}/{CONTAINER}/{{name:path}}", endpoint.serve, methods=methods)
        for account in (f"/{ACCOUNT}", "")
    ]


class Blobs:
    """The block blob calls."""

    def __init__(self, store: Store, blobs: FileBlobs) -> None:
        self._store = store
        self._blobs = blobs

    async def serve(self, request: Request) -> Response:
        """The call that method and `comp` name."""
        name, comp = request.path_params["name"], request.query_params.get("comp", "")
        try:
            match request.method, comp:
                case "PUT", "block":
                    return await self._put_block(request, name)
                case "PUT", "blocklist":
                    return await self._put_block_list(request, name)
                case "PUT", "":
                    return await self._put_blob(request, name)
                case "GET", "blocklist":
                    return self._get_block_list(request, name)
                case (("GET" | "HEAD"), ""):
                    return self._get_blob(request, name)
                case "DELETE", "":
                    return self._delete(request, name)
        except ClientDisconnect:
            return Response(status_code=400)
        raise StorageError(400, "InvalidQueryParameterValue", f"comp={comp} is not served here.")

    async def _put_blob(self, request: Request, name: str) -> Response:
        self._check_write(request, name)
        if request.headers.get("x-ms-blob-type") != "BlockBlob":
            raise StorageError(400, "MissingRequiredHeader", "x-ms-blob-type must be BlockBlob.")
        file, md5 = await self._receive(request)
        try:
            self._check_write(request, name)
        except StorageError:
            file.unlink()
            raise
        stored_md5 = request.headers.get("x-ms-blob-content-md5") or md5
        row = self._publish(request, name, file, stored_md5)
        self._forget_blocks(name, committed=[])
        return Response(None, 201, _facts(row) | {"Content-MD5": md5})

    async def _put_block(self, request: Request, name: str) -> Response:
        self._blobs.access.check(name, request.query_params, any_of="cw")
        block_id = request.query_params.get("blockid", "")
        file, md5 = await self._receive(request)
        old = self._find_block(name, block_id, UNCOMMITTED)
        self._store.run(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?)",
            name,
            block_id,
            file.name,
            file.stat().st_size,
            UNCOMMITTED,
            self._store.next_seq(),
        )
        if old is not None:
            self._blobs.remove([old["file"]])
        return Response(None, 201, _head() | {"Content-MD5": md5})

    async def _put_block_list(self, request: Request, name: str) -> Response:
        """A list that names the committed blocks again, in order, leaves the content as it is."""
        self._check_write(request, name)
        wanted = _block_list(await request.body())
        if wanted and self._committed_ids(name) == [block_id for _, block_id in wanted]:
            return Response(None, 201, _facts(self._blobs.find(name)))
        chosen = [self._get_block(name, block_id) for _, block_id in wanted]
        file = self._blobs.new_file()
        await asyncio.to_thread(join_files, [self._blobs.file(block["file"]) for block in chosen], file)
        try:
            self._check_write(request, name)
        except StorageError:
            file.unlink()
            raise
        row = self._publish(request, name, file, request.headers.get("x-ms-blob-content-md5"))
        self._forget_blocks(name, committed=chosen)
        return Response(None, 201, _facts(row))

    def _get_block_list(self, request: Request, name: str) -> Response:
        self._blobs.access.check(name, request.query_params, any_of="r")
        kind = request.query_params.get("blocklisttype", "committed").lower()
        rows = self._store.list("SELECT * FROM blocks WHERE name = ? ORDER BY seq", name)
        if not rows and self._blobs.find(name) is None:
            raise _not_found()
        committed = _blocks_xml(rows, COMMITTED) if kind in {"committed", "all"} else ""
        uncommitted = _blocks_xml(rows, UNCOMMITTED) if kind in {"uncommitted", "all"} else ""
        body = (
            '<?xml version="1.0" encoding="utf-8"?><BlockList>'
            f"<CommittedBlocks>{committed}</CommittedBlocks>"
            f"<UncommittedBlocks>{uncommitted}</UncommittedBlocks></BlockList>"
        )
        return Response(body, 200, _head(), "application/xml")

    def _get_blob(self, request: Request, name: str) -> Response:
        self._blobs.access.check(name, request.query_params, any_of="r")
        row = self._blobs.find(name)
        if row is None:
            raise _not_found()
        _check_etag(request, row)
        first, last, is_part = _range(request, row["size"])
        headers = _facts(row) | {
            "Content-Type": row["content_type"],
            "Accept-Ranges": "bytes",
            "Content-Length": str(last - first + 1),
            "x-ms-blob-type": "BlockBlob",
            "x-ms-server-encrypted": "true",
        }
        if is_part:
            headers["Content-Range"] = f"bytes {first}-{last}/{row['size']}"
        if row["content_md5"]:
            headers["x-ms-blob-content-md5" if is_part else "Content-MD5"] = row["content_md5"]
        headers |= {f"x-ms-meta-{key}": value for key, value in json.loads(row["metadata"]).items()}
        status = 206 if is_part else 200
        if request.method == "HEAD":
            return Response(None, status, headers)
        file = self._blobs.file(row["file"])
        return StreamingResponse(_slices(file, first, last), status, headers)

    def _delete(self, request: Request, name: str) -> Response:
        self._blobs.access.check(name, request.query_params, any_of="d")
        if not self._blobs.discard(name):
            raise _not_found()
        self._forget_blocks(name, committed=[])
        return Response(None, 202, _head())

    def _check_write(self, request: Request, name: str) -> None:
        """Conditions and permission; `c` alone makes new blobs and replaces none [D]."""
        row = self._blobs.find(name)
        self._blobs.access.check(name, request.query_params, any_of="w" if row is not None else "cw")
        if row is None:
            if request.headers.get("if-match"):
                raise StorageError(412, "ConditionNotMet", "The condition specified is not met.")
            return
        if request.headers.get("if-none-match") == "*":
            raise StorageError(409, "BlobAlreadyExists", "The specified blob already exists.")
        _check_etag(request, row)

    async def _receive(self, request: Request) -> tuple[Path, str]:
        """Stream the body to a new file; returns it with the MD5 of what arrived."""
        file, md5 = self._blobs.new_file(), hashlib.md5(usedforsecurity=False)
        try:
            with file.open("wb") as sink:
                async for chunk in request.stream():
                    sink.write(chunk)
                    md5.update(chunk)
        except ClientDisconnect:
            file.unlink()
            raise
        digest = base64.b64encode(md5.digest()).decode()
        claimed = request.headers.get("content-md5")
        if claimed and claimed != digest:
            file.unlink()
            raise StorageError(
                400, "Md5Mismatch", "The MD5 value specified in the request did not match with the MD5 value"
                " calculated by the server.",
            )  # fmt: skip
        return file, digest

    def _publish(self, request: Request, name: str, file: Path, content_md5: str | None) -> Any:
        headers = request.headers
        metadata = {
            key.removeprefix("x-ms-meta-"): value
            for key, value in headers.items()
            if key.startswith("x-ms-meta-")
        }
        return self._blobs.publish(
            name,
            file,
            content_md5=content_md5,
            content_type=headers.get("x-ms-blob-content-type")
            or headers.get("content-type")
            or "application/octet-stream",
            metadata=json.dumps(metadata),
        )

    def _find_block(self, name: str, block_id: str, committed: int) -> Any:
        return self._store.find(
            "SELECT * FROM blocks WHERE name = ? AND block_id = ? AND committed = ?",
            name,
            block_id,
            committed,
        )

    def _get_block(self, name: str, block_id: str) -> Any:
        block = self._find_block(name, block_id, UNCOMMITTED)
        if block is None:
            raise StorageError(400, "InvalidBlockList", "The specified block list is invalid.")
        return block

    def _committed_ids(self, name: str) -> list[str]:
        """Empty where something was staged since the commit."""
        rows = self._store.list("SELECT block_id, committed FROM blocks WHERE name = ? ORDER BY seq", name)
        return (
            [] if any(row["committed"] == UNCOMMITTED for row in rows) else [row["block_id"] for row in rows]
        )

    def _forget_blocks(self, name: str, *, committed: list[Any]) -> None:
        """After a commit the blocks are only names: the bytes are in the blob."""
        rows = self._store.list("SELECT file FROM blocks WHERE name = ? AND committed = 0", name)
        self._store.run("DELETE FROM blocks WHERE name = ?", name)
        for block in committed:
            self._store.run(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, '', ?, ?, ?)",
                name,
                block["block_id"],
                block["size"],
                COMMITTED,
                self._store.next_seq(),
            )
        self._blobs.remove([row["file"] for row in rows])


def _head() -> dict[str, str]:
    return {
        "x-ms-version": VERSION,
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-request-server-encrypted": "true",
    }


def _facts(row: Any) -> dict[str, str]:
    return _head() | {"ETag": row["etag"], "Last-Modified": formatdate(row["modified"], usegmt=True)}


def _not_found() -> StorageError:
    return StorageError(404, "BlobNotFound", "The specified blob does not exist.")


def _check_etag(request: Request, row: Any) -> None:
    wanted = request.headers.get("if-match")
    if wanted and wanted not in {"*", row["etag"]}:
        raise StorageError(
            412, "ConditionNotMet", "The condition specified using HTTP conditional header(s) is not met."
        )


def _range(request: Request, size: int) -> tuple[int, int, bool]:
    """First and last byte to send, and whether a part was asked for; 416 beyond the end."""
    text = request.headers.get("x-ms-range") or request.headers.get("range")
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", text or "")
    if match is None:
        return 0, size - 1, False
    first = int(match[1])
    last = min(int(match[2]) if match[2] else size - 1, size - 1)
    if first >= size:
        raise StorageError(
            416, "InvalidRange", "The range specified is invalid for the current size of the resource."
        )
    return first, last, True


async def _slices(file: Path, first: int, last: int) -> AsyncIterator[bytes]:
    left = last - first + 1
    with file.open("rb") as source:
        source.seek(first)
        while left > 0:
            chunk = source.read(min(CHUNK_BYTES, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


def _block_list(body: bytes) -> list[tuple[str, str]]:
    """(kind, block id) in order. Only a local test sends this document, so no hardened parser."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise StorageError(400, "InvalidXmlDocument", "XML specified is not syntactically valid.") from error
    return [(element.tag, (element.text or "").strip()) for element in root]


def _blocks_xml(rows: list[Any], committed: int) -> str:
    return "".join(
        f"<Block><Name>{escape(row['block_id'])}</Name><Size>{row['size']}</Size></Block>"
        for row in rows
        if row["committed"] == committed
    )
