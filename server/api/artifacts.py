"""Routes about artifacts: uploads and downloads are streamed, whatever their size.

What clients uploaded is handed out as inert bytes: as an attachment, in a sandbox, and never under a type
that a browser would run.
"""

import mimetypes
import posixpath
import re
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from server.api.endpoints import (
    MLFLOW_2,
    MLFLOW_AND_PREVIEW,
    Call,
    ClientDisconnectedError,
    Endpoint,
    StreamHandler,
    json_routes,
    read_body,
    stream_routes,
)
from server.api.errors import send_json
from server.api.streaming import send_body
from server.domain.access import Permission
from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.protocol import artifacts as messages
from server.protocol.artifacts import invalid_path
from server.protocol.wire import Decoder, missing_parameter, require
from server.services.artifact_places import FoundFile
from server.services.artifacts import Artifacts
from server.store.artifacts import FolderEntry

ARTIFACT_PREFIXES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")

_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"accept-ranges", b"bytes"),
]
_TEXT_EXTENSION = re.compile(
    r"\.(txt|log|err|cfg|conf|cnf|cf|ini|properties|prop|hocon|toml|ya?ml|xml|json|m?js|css|py3?|csv|tsv|md|rst"
    r"|ipynb|x?html?|svg)",
    re.IGNORECASE,
)
_TEXT_NAMES = frozenset({"MLmodel", "MLproject"})
_INERT_TYPES = re.compile(
    r"(audio|font|image|video)/(?!svg)[\w.+-]+|application/(gzip|zip|x-tar|octet-stream)"
)
_OCTETS = "application/octet-stream"
_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*")
_LONGEST_NUMBER = 18
_LARGEST_UI_FILE = 10 * 1024 * 1024


class ArtifactRoutes:
    """mlflow-artifacts/*, artifacts/list, get-artifact and its like."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._run_file = Decoder(messages.RunFileRequest)
        self._version_file = Decoder(messages.ModelVersionFileRequest)
        self._model_file = Decoder(messages.LoggedModelFileRequest)

    def routes(self) -> list[Endpoint]:
        """The route table."""
        read, write = Permission.READ, Permission.WRITE
        model = "/logged-models/{model_id}/artifacts"
        ajax = MLFLOW_2[1]
        streams: list[tuple[str, Sequence[str], StreamHandler, Permission]] = [
            ("GET", _proxied("artifacts/{artifact_path:path}"), self._download, read),
            ("PUT", _proxied("artifacts/{artifact_path:path}"), self._upload, write),
            ("DELETE", _proxied("artifacts/{artifact_path:path}"), self._delete, write),
            ("GET", ["/get-artifact", f"{ajax}/get-artifact"], self._download_of_run, read),
            ("POST", [f"{ajax}/upload-artifact"], self._upload_of_run, write),
            (
                "GET",
                ["/model-versions/get-artifact", f"{ajax}/model-versions/get-artifact"],
                self._download_of_version,
                read,
            ),
            ("GET", [f"{prefix}{model}/files" for prefix in MLFLOW_2], self._download_of_model, read),
        ]
        lists: list[tuple[str, Any, Any, Sequence[str]]] = [
            ("/artifacts", self._list, messages.FolderRequest, ARTIFACT_PREFIXES),
            ("/artifacts/list", self._list_of_run, messages.RunFolderRequest, MLFLOW_AND_PREVIEW),
            (f"{model}/directories", self._list_of_model, messages.LoggedModelFolderRequest, MLFLOW_2),
        ]
        routes = [
            route
            for path, handler, message, prefixes in lists
            for route in json_routes(
                "GET", path, handler, permission=read, message=message, prefixes=prefixes
            )
        ]
        for method, paths, stream, permission in streams:
            routes += stream_routes(method, paths, stream, permission=permission)
        return routes

    # --- by path ---

    async def _download(self, call: Call) -> None:
        await self._send(call, await self._artifacts.find(artifact_path(call)))

    async def _upload(self, call: Call) -> None:
        async with aclosing(_body_of(call)) as chunks:
            await self._artifacts.upload(artifact_path(call), chunks, _declared_size(call), call.user)
        await send_json(call.send, b"{}")

    async def _delete(self, call: Call) -> None:
        await self._artifacts.delete(artifact_path(call), call.user)
        await send_json(call.send, b"{}")

    async def _list(self, call: Call, request: messages.FolderRequest) -> messages.FilesAnswer:
        return messages.FilesAnswer(_file_messages(await self._artifacts.list_folder(request.path)))

    # --- by owner ---

    async def _list_of_run(
        self, call: Call, request: messages.RunFolderRequest
    ) -> messages.RootedFilesAnswer:
        root_uri, entries = await self._artifacts.list_for_run(request.named_run, request.path)
        return messages.RootedFilesAnswer(root_uri, _file_messages(entries, request.path))

    async def _list_of_model(
        self, call: Call, request: messages.LoggedModelFolderRequest
    ) -> messages.RootedFilesAnswer:
        folder = request.artifact_directory_path
        root_uri, entries = await self._artifacts.list_for_model(call.path_params["model_id"], folder)
        return messages.RootedFilesAnswer(root_uri, _file_messages(entries, folder))

    async def _download_of_run(self, call: Call) -> None:
        request: messages.RunFileRequest = self._run_file.from_query(call.query)
        path = require("path", request.path)
        await self._send(call, await self._artifacts.find_for_run(request.named_run, path))

    async def _upload_of_run(self, call: Call) -> None:
        request: messages.RunFileRequest = self._run_file.from_query(call.query)
        run_id, path = request.named_run, require("path", request.path)
        content = await read_body(call, _LARGEST_UI_FILE)
        if not content:
            raise invalid_parameter("Request must specify data.")
        await self._artifacts.upload_for_run(run_id, path, content, call.user)
        await send_json(call.send, b"{}")

    async def _download_of_version(self, call: Call) -> None:
        request: messages.ModelVersionFileRequest = self._version_file.from_query(call.query)
        if request.version is None:
            raise missing_parameter("version")
        name, path = require("name", request.name), require("path", request.path)
        await self._send(call, await self._artifacts.find_for_version(name, request.version, path))

    async def _download_of_model(self, call: Call) -> None:
        request: messages.LoggedModelFileRequest = self._model_file.from_query(call.query)
        path = require("artifact_file_path", request.artifact_file_path)
        await self._send(call, await self._artifacts.find_for_model(call.path_params["model_id"], path))

    # --- sending ---

    async def _send(self, call: Call, found: FoundFile) -> None:
        size = found.file.size_bytes
        etag = f'"{found.file.md5.hex()}"'.encode()
        headers = [*_SAFE_HEADERS, (b"etag", etag)]
        if _names(call.header(b"if-none-match"), etag):
            await call.send({"type": "http.response.start", "status": 304, "headers": headers})
            await call.send({"type": "http.response.body", "body": b""})
            return
        part = _wanted_part(call, size, etag)
        headers += [
            (b"content-type", _content_type(found.name).encode()),
            (b"content-disposition", _attachment(found.name).encode()),
            (b"content-length", str(part.length).encode()),
        ]
        if part.is_range:
            last = part.offset + part.length - 1
            headers.append((b"content-range", f"bytes {part.offset}-{last}/{size}".encode()))
        start = {"type": "http.response.start", "status": 206 if part.is_range else 200, "headers": headers}
        if call.scope["method"] == "HEAD" or not part.length:
            await call.send(start)
            await call.send({"type": "http.response.body", "body": b""})
            return
        if found.file.content is not None:
            body = found.file.content[part.offset : part.offset + part.length]
            await call.send(start)
            await call.send({"type": "http.response.body", "body": body})
            return
        async with aclosing(await self._artifacts.open(found, part.offset, part.length)) as chunks:
            await call.send(start)
            await send_body(call, chunks)


def _proxied(path: str) -> list[str]:
    return [f"{prefix}/{path}" for prefix in ARTIFACT_PREFIXES]


# --- requests -------------------------------------------------------------------------------


def artifact_path(call: Call, kind: str = "artifacts") -> str:
    """The path behind `mlflow-artifacts/{kind}/`. The route's match does not see a trailing line end.

    Raises:
        MlflowError: it is not UTF-8.
    """
    whole: str = call.scope["path"]
    path = whole.partition(f"/mlflow-artifacts/{kind}/")[2]
    if "\ufffd" in path:
        # The web server puts this character for what is not UTF-8: two names would become one.
        try:
            unquote_to_bytes(call.scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError as error:
            raise invalid_path() from error
    return path


def _declared_size(call: Call) -> int | None:
    declared = call.header(b"content-length")
    if declared is None or call.header(b"transfer-encoding") is not None:
        return None
    if not declared.isdigit() or len(declared) > _LONGEST_NUMBER:
        raise invalid_parameter("The Content-Length is not a number.")
    return int(declared)


async def _body_of(call: Call) -> AsyncGenerator[bytes, None]:
    """The body as it comes in. It is asked for only as fast as it is taken."""
    has_more = True
    while has_more:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        if chunk := message.get("body", b""):
            yield chunk
        has_more = message.get("more_body", False)


# --- answers --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes to send."""

    offset: int
    length: int
    is_range: bool


def _file_messages(entries: Sequence[FolderEntry], folder: str | None = None) -> list[messages.FileMessage]:
    """The entries, named from where the listing was asked for."""
    return [
        messages.FileMessage(
            posixpath.join(folder, entry.name) if folder else entry.name, entry.is_folder, entry.size_bytes
        )
        for entry in entries
    ]


def _wanted_part(call: Call, size: int, etag: bytes) -> _Part:
    """What the client asks for. Anything but one range that can be read is answered with the whole."""
    whole = _Part(0, size, is_range=False)
    header = call.header(b"range")
    condition = call.header(b"if-range")
    if header is None or (condition is not None and condition.strip() != etag):
        return whole
    match = _RANGE.fullmatch(header.decode("latin-1"))
    if match is None or max(map(len, match.groups())) > _LONGEST_NUMBER:
        return whole
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
        if last and int(last) < start:
            return whole
    elif last:
        start, end = max(size - int(last), 0), size - 1
    else:
        return whole
    if start > end:
        raise MlflowError(
            ErrorCode.INVALID_PARAMETER_VALUE,
            f"The range lies outside the artifact, which has {size} bytes.",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return _Part(start, end - start + 1, is_range=True)


def _names(condition: bytes | None, etag: bytes) -> bool:
    if condition is None:
        return False
    tags = {tag.strip().removeprefix(b"W/") for tag in condition.split(b",")}
    return bool(tags & {etag, b"*"})


def _content_type(name: str) -> str:
    """A type that no browser runs; text for everything that people read as text."""
    if name in _TEXT_NAMES or _TEXT_EXTENSION.fullmatch(posixpath.splitext(name)[1]):
        return "text/plain"
    guessed = _types.guess_type(name, strict=False)[0] or _OCTETS
    return guessed if _INERT_TYPES.fullmatch(guessed) else _OCTETS


def _attachment(name: str) -> str:
    """The name for a browser to save under (RFC 6266), for old ones in ASCII."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^\w .,()=@\-+#~]", "_", plain).strip() or "download"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


# Only the types that Python itself knows: those of the machine differ from place to place.
_types = mimetypes.MimeTypes(filenames=())
