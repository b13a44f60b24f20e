"""Artifacts: the index of files, and the addresses their bytes are written to and read from.

Immutable by path: a second create of a path is answered 200 with a Resource Conflict under `errors`
[I][W]. What is listed is what the index holds, whether or not bytes have arrived [C]. Run History and
the artifact service are two doors to this index; each call exists with the path in the query (azureml-
mlflow) and in the address (azureml-core) [C].
"""

import json
import sqlite3
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from emulator import search
from emulator.blob_store import FileBlobs
from emulator.errors import JsonObject, ServiceError, invalid, missing, over_limit, service_body
from emulator.store import Store
from emulator.workspace import Call, Workspace, origin_of, read_call, workspace_scope

COMPONENT = "artifact"
DATASTORE = "workspaceartifactstore"
RUN_ORIGIN = "ExperimentRun"
WRITE = "rcw"


def create_many(call: Call) -> JsonObject:
    """`batch/metadata`: reserve paths and hand out write addresses; the maps are keyed by path [W]."""
    place = place_of(call)
    entries = call.list("paths")
    limit = call.settings.limits.artifact_batch_paths
    if len(entries) > limit:
        raise invalid(f"Artifact batch size exceeded the limit of {limit}")
    artifacts: JsonObject = {}
    contents: JsonObject = {}
    errors: JsonObject = {}
    for entry in entries:
        path = str(entry["path"])
        try:
            row = _insert(call, *place, path, entry.get("tags"))
        except ServiceError as error:
            errors[path] = service_body(error, COMPONENT)
            continue
        artifacts[path] = describe(row)
        contents[path] = _content(call, row, WRITE)
    return {"artifacts": artifacts, "artifactContentInformation": contents, "errors": errors}


def list_all(call: Call) -> JsonObject:
    """A page; `nextLink` is what azureml-mlflow follows, `continuationToken` what azureml-core does [C]."""
    return _page(call, [describe(row) for row in _rows(call, call.find_text("path") or "")])


def list_contents(call: Call) -> JsonObject:
    """`prefix/contentinfo`: read addresses of everything below a path."""
    return _page(call, [_content(call, row, "r") for row in _rows(call, call.find_text("path") or "")])


def content(call: Call) -> JsonObject:
    """`contentinfo`: an address to read the bytes."""
    return _content(call, get_row(call), "r")


def content_to_write(call: Call) -> JsonObject:
    """`write`: an address to replace the bytes of an artifact that exists [C]."""
    return _content(call, get_row(call), WRITE)


def metadata(call: Call) -> JsonObject:
    """The index entry."""
    return describe(get_row(call))


def create(call: Call) -> JsonObject:
    """`POST /metadata` and `POST /register`: index a blob that is in storage already [C]."""
    origin, container, path = (call.text(name) for name in ("origin", "container", "path"))
    row = _insert(call, origin, container, path, call.arguments.get("tags"))
    data_path = call.arguments.get("dataPath") or {}
    relative_path = data_path.get("relativePath")
    if relative_path:
        call.store.run(
            "UPDATE artifacts SET datastore = ?, relative_path = ? WHERE seq = ?",
            str(data_path.get("dataStoreName") or DATASTORE),
            str(relative_path),
            row["seq"],
        )
    found = find(call.store, origin, container, path)
    assert found is not None
    return describe(found)


def describe_many(call: Call) -> JsonObject:
    """`POST /batch/metadata` with artifact ids."""
    found: JsonObject = {}
    for artifact_id in call.list("artifactIds"):
        row = find(call.store, *str(artifact_id).split("/", 2))
        if row is not None:
            found[str(artifact_id)] = describe(row)
    return {"artifacts": found}


def ingest(call: Call) -> JsonObject:
    """Index every blob of ours below the container address given; bytes are neither copied nor moved."""
    blobs = call.workspace.blobs
    if not isinstance(blobs, FileBlobs):
        raise invalid("Ingesting is only possible from the emulator's own storage.")
    origin, container = place_of(call)
    address = urlsplit(call.find_text("containerUri") or call.text("containerSas"))
    folder = "/".join(address.path.strip("/").split("/")[2:])
    prefix = "/".join(part for part in (folder, call.find_text("prefix") or "") if part)
    for blob in call.store.list("SELECT name FROM blobs WHERE substr(name, 1, ?) = ?", len(prefix), prefix):
        below = blob["name"].removeprefix(prefix).lstrip("/") or Path(blob["name"]).name
        path = "/".join(part for part in (call.find_text("artifactPrefix") or "", below) if part)
        row = _insert(call, origin, container, path, None)
        call.store.run("UPDATE artifacts SET relative_path = ? WHERE seq = ?", blob["name"], row["seq"])
    return {"value": [describe(row) for row in _rows(call, call.find_text("artifactPrefix") or "")]}


class Contents:
    """The calls that touch bytes, and so cannot run inside one transaction."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def upload(self, request: Request) -> Response:
        """`POST …/content`: bytes and index entry in one call. `append` is not served [?]."""
        call = await _call_without_body(self._workspace, request)
        origin, container = place_of(call)
        path = call.text("path")
        body = await request.body()
        with call.store.transaction():
            row = find(call.store, origin, container, path)
            if row is None:
                row = _insert(call, origin, container, path, None)
            elif str(call.arguments.get("allowOverwrite", "")).lower() != "true":
                raise _conflict(origin, container, path)
        await self._workspace.blobs.write(row["relative_path"], body)
        return JSONResponse(describe(row))

    async def download(self, request: Request) -> Response:
        """`GET …/content`: the bytes themselves."""
        row = get_row(await _call_without_body(self._workspace, request))
        if not await self._workspace.blobs.exists(row["relative_path"]):
            raise missing(f"The bytes of artifact {row['path']} were never uploaded.")
        return StreamingResponse(
            self._workspace.blobs.read(row["relative_path"]), media_type="application/octet-stream"
        )

    async def address(self, request: Request) -> Response:
        """`artifacturi`: the read address as bare JSON text [C]."""
        call = await _call_without_body(self._workspace, request)
        return JSONResponse(content(call)["contentUri"])

    async def delete(self, request: Request) -> Response:
        """One index entry; its bytes too, unless `hardDelete=false` [?]."""
        call = await _call_without_body(self._workspace, request)
        row = get_row(call)
        await self._remove(row, keeps_bytes=str(call.arguments.get("hardDelete", "")).lower() == "false")
        return PlainTextResponse("", 200)

    async def delete_many(self, request: Request) -> Response:
        """A whole container (`DELETE …/batch`) or the paths named (`batch/metadata:delete`)."""
        call = await read_call(self._workspace, request)
        origin, container = place_of(call)
        paths = {str(entry["path"] if isinstance(entry, dict) else entry) for entry in call.list("paths")}
        for row in _rows_of(call.store, origin, container, ""):
            if not paths or row["path"] in paths:
                await self._remove(row, keeps_bytes=False)
        return PlainTextResponse("", 200)

    async def _remove(self, row: sqlite3.Row, *, keeps_bytes: bool) -> None:
        self._workspace.store.run("DELETE FROM artifacts WHERE seq = ?", row["seq"])
        if not keeps_bytes and await self._workspace.blobs.exists(row["relative_path"]):
            await self._workspace.blobs.delete(row["relative_path"])


def describe(row: sqlite3.Row) -> JsonObject:
    """The artifact document of both services."""
    return {
        "artifactId": f"{row['origin']}/{row['container']}/{row['path']}",
        "origin": row["origin"],
        "container": row["container"],
        "path": row["path"],
        "etag": row["etag"],
        "createdTime": row["created"],
        "dataPath": {
            "dataStoreName": row["datastore"],
            "relativePath": row["relative_path"],
            "sqlDataPath": None,
        },
        "tags": json.loads(row["tags"]) if row["tags"] else None,
    }


def place_of(call: Call) -> tuple[str, str]:
    """Origin and container: from the address, or those of the run."""
    if "origin" in call.path:
        return call.path["origin"], call.path["container"]
    return RUN_ORIGIN, container_of_run(call.path["run_id"])


def container_of_run(run_id: str) -> str:
    """Where a run's files are."""
    return f"dcid.{run_id}"


def rows_of_run(store: Store, run_id: str) -> list[sqlite3.Row]:
    """The index entries of a run, oldest first."""
    return _rows_of(store, RUN_ORIGIN, container_of_run(run_id), "")


def find(store: Store, origin: str, container: str, path: str) -> sqlite3.Row | None:
    """The index entry, or nothing."""
    return store.find(
        "SELECT * FROM artifacts WHERE origin = ? AND container = ? AND path = ?", origin, container, path
    )


def get_row(call: Call) -> sqlite3.Row:
    """The index entry that the call names; 404 if there is none."""
    path = call.path.get("path") or call.text("path")
    row = find(call.store, *place_of(call), path)
    if row is None:
        raise missing(f"Artifact {path} not found")
    return row


def _insert(call: Call, origin: str, container: str, path: str, tags: Any) -> sqlite3.Row:
    limit = call.settings.limits.artifact_path_chars
    if len(path) > limit:
        raise over_limit("ArtifactPath", limit, len(path))
    if find(call.store, origin, container, path):
        raise _conflict(origin, container, path)
    call.store.run(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        origin,
        container,
        path,
        f'"{uuid.uuid4()}"',
        datetime.now(UTC).isoformat(),
        json.dumps(tags) if tags else None,
        DATASTORE,
        f"{origin}/{container}/{path}",
        call.store.next_seq(),
    )
    row = find(call.store, origin, container, path)
    assert row is not None
    return row


def _conflict(origin: str, container: str, path: str) -> ServiceError:
    return ServiceError(409, f"Resource Conflict: ArtifactId {origin}/{container}/{path} already exists.")


def _content(call: Call, row: sqlite3.Row, permissions: str) -> JsonObject:
    settings = call.settings
    seconds = settings.read_sas_seconds if permissions == "r" else settings.write_sas_seconds
    origin = call.origin if settings.blob_host_in_path else None
    uri = call.workspace.blobs.content_uri(
        origin, row["relative_path"], permissions=permissions, seconds=seconds
    )
    return {
        "contentUri": uri,
        "origin": row["origin"],
        "container": row["container"],
        "path": row["path"],
        "tags": json.loads(row["tags"]) if row["tags"] else None,
    }


def _rows(call: Call, prefix: str) -> list[sqlite3.Row]:
    return _rows_of(call.store, *place_of(call), call.path.get("path") or prefix)


def _rows_of(store: Store, origin: str, container: str, prefix: str) -> list[sqlite3.Row]:
    rows = store.list(
        "SELECT * FROM artifacts WHERE origin = ? AND container = ? ORDER BY seq", origin, container
    )
    folder = prefix.rstrip("/")
    return [
        row for row in rows if not folder or row["path"] == folder or row["path"].startswith(f"{folder}/")
    ]


def _page(call: Call, items: list[JsonObject]) -> JsonObject:
    start = search.read_token(call.find_text("continuationToken"))
    size = call.number("pageSize", call.settings.artifact_page_size)
    token = search.make_token(start + size) if start + size < len(items) else None
    link = f"{call.origin}{call.path['_address']}?continuationToken={quote(token)}" if token else None
    if link and call.find_text("path"):
        link += f"&path={quote(call.text('path'))}"
    return {"value": items[start : start + size], "continuationToken": token, "nextLink": link}


async def _call_without_body(workspace: Workspace, request: Request) -> Call:
    """Bytes are not JSON: only the address is read."""
    path = {name: str(value) for name, value in request.path_params.items()}
    arguments: JsonObject = {
        name: values[0] for name, values in parse_qs(request.url.query, keep_blank_values=True).items()
    }
    arguments |= {"path": path["path"]} if "path" in path else {}
    return Call(workspace, origin_of(request), workspace_scope(path), path, arguments)
