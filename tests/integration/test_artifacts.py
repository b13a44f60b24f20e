"""Artifacts from the wire to the database, the spool and the journal, and back."""

import asyncio
import hashlib
import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from starlette.routing import BaseRoute

from server.api.artifacts import ArtifactRoutes
from server.api.direct_artifacts import DirectArtifactRoutes
from server.api.door import Door
from server.api.endpoints import Call, Endpoint, json_routes
from server.api.experiments import ExperimentRoutes
from server.api.runs import RunRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.schema import metadata
from server.domain.access import Permission, Principal, Role
from server.domain.clock import SystemClock
from server.domain.operations import DeleteArtifact, Operation, UploadArtifact
from server.domain.origins import Origin
from server.domain.verdicts import Verdict
from server.journal.codec import decode_operation
from server.journal.lanes import lock_lanes
from server.protocol.runs import CreateRunRequest
from server.services.artifacts import Artifacts
from server.services.direct_artifacts import DirectArtifacts
from server.services.experiments import Experiments, add_default_experiment
from server.services.runs import Runs
from server.spool.spool import Spool
from server.store import artifacts as rows
from server.store.artifacts import ArtifactFile, FolderEntry
from server.upstream.failures import DOES_NOT_EXIST, UpstreamFailure
from tests.support.databases import MakeDatabase
from tests.support.tracking import resends_over

pytestmark = pytest.mark.asyncio

FILES = "/api/2.0/mlflow-artifacts/artifacts"
ROOM = 64 * 1024 * 1024
MIB = 1024 * 1024
MEMORY_MIB = 32
LARGE = os.urandom(300_000)


class Keys:
    """An authenticator that knows two keys."""

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """`Bearer reader` may read; everything else is the administrator."""
        if authorization == b"Bearer reader":
            return Principal("reader", Role.READ)
        return Principal("admin", Role.ADMIN)


@dataclass
class Workspace:
    """What the workspace keeps, or how it fails."""

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    failure: UpstreamFailure | None = None
    reads: list[tuple[int, int | None]] = field(default_factory=list)

    async def open_read(
        self, run_id: str, upstream_path: str, offset: int, length: int | None
    ) -> AsyncIterator[bytes]:
        """The bytes in small pieces."""
        self.reads.append((offset, length))
        if self.failure is not None:
            raise self.failure
        end = None if length is None else offset + length
        content = self.files[run_id, upstream_path][offset:end]
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]


@dataclass
class Served:
    """A server with a database, a spool and a workspace of its own."""

    http: httpx.AsyncClient
    port: int
    database: Database
    writer: Writer
    spool: Spool
    artifacts: Artifacts
    experiments: Experiments
    runs: Runs
    workspace: Workspace

    async def run(self, experiment_id: str = "0") -> tuple[str, str]:
        """A new run: its id and the path of its root."""
        message = await self.runs.create(CreateRunRequest(experiment_id=experiment_id), Origin())
        uri = message.info.artifact_uri
        return message.info.run_id, uri.removeprefix("mlflow-artifacts:/")

    async def model(self, model_id: str, run_id: str | None, folder: str | None) -> str:
        """A new logged model; the path of its root."""
        prefix = f"0/models/{model_id}/artifacts"
        await self.write(
            "INSERT INTO logged_models (model_id, experiment_id, name, artifact_uri, status, source_run_id,"
            " lifecycle_stage, creation_timestamp_ms, last_updated_timestamp_ms, upstream_folder, born)"
            " VALUES (?, 0, 'm', ?, 'READY', ?, 'active', 0, 0, ?, 'proxy')",
            (model_id, f"mlflow-artifacts:/{prefix}/", run_id, folder),
        )
        return prefix

    async def put(self, path: str, content: bytes) -> httpx.Response:
        """Upload as the stock client does, which encodes the path."""
        return await self.http.put(f"{FILES}/{quote(path)}", content=content)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        """Download."""
        return await self.http.get(f"{FILES}/{quote(path)}", headers=headers)

    async def names(self, path: str | None = None) -> list[str]:
        """What a folder holds."""
        answer = await self.http.get(FILES, params={} if path is None else {"path": path})
        return [file["path"] for file in answer.json().get("files", [])]

    async def write(self, sql: str, parameters: tuple[Any, ...]) -> None:
        """Change the database."""
        await self.writer.commit(Work(lambda transaction: transaction.run(sql, parameters)))

    async def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Read the database."""
        return await self.database.read(lambda transaction: transaction.rows(sql, parameters))

    async def entries(self, run_id: str) -> list[Operation]:
        """What waits on the run's artifact lane."""
        found = await self.rows(
            "SELECT journal_entries.kind, payload FROM journal_entries JOIN runs ON runs.artifact_lane_id"
            " = journal_entries.lane_id WHERE run_id = ? ORDER BY position",
            (run_id,),
        )
        return [decode_operation(*row) for row in found]

    async def all_entries(self) -> int:
        """How many operations on artifacts wait anywhere."""
        kinds = "('UploadArtifact', 'DeleteArtifact')"
        return int((await self.rows(f"SELECT count(*) FROM journal_entries WHERE kind IN {kinds}"))[0][0])

    async def deliver(self, run_id: str) -> None:
        """Do what the replay does with the run's uploads."""
        for entry in await self.entries(run_id):
            assert isinstance(entry, UploadArtifact)
            assert entry.spool_name is not None
            content = self.spool.path_of(entry.spool_name).read_bytes()
            self.workspace.files[run_id, entry.upstream_path] = content
            await self.mark_delivered(entry)

    async def mark_delivered(self, entry: UploadArtifact) -> bool:
        """Settle one upload."""
        may_go = await self.writer.commit(
            Work(
                lambda transaction: rows.mark_delivered(
                    transaction,
                    entry.root_id,
                    entry.path,
                    md5=entry.md5,
                    spool_name=entry.spool_name,
                    upstream_path=entry.upstream_path,
                )
            )
        )
        if may_go:
            await self.spool.remove(entry.spool_name or "")
        return may_go

    def spooled(self) -> list[str]:
        """The names of the files in the spool."""
        return sorted(
            path.name for path in self.spool.path_of("0" * 40).parents[1].rglob("*") if path.is_file()
        )


async def _no_models(call: Call, request: None) -> None:
    """The stock client looks for logged models whenever it lists a run's artifacts."""


@asynccontextmanager
async def serving(
    database_url: str, folder: Path, *, room: int = ROOM, has_workspace: bool = True
) -> AsyncIterator[Served]:
    """Serve on a free port."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    with database.writing(0) as transaction:
        add_default_experiment(transaction)
    writer = Writer(database=database, clock=SystemClock())
    writer.start()
    spool, workspace = Spool(folder / "spool", room), Workspace()
    upstream = workspace if has_workspace else None
    artifacts = Artifacts(database=database, writer=writer, spool=spool, upstream=upstream)
    resends = resends_over(database, writer)
    experiments = Experiments(database=database, writer=writer, resends=resends)
    runs = Runs(database=database, writer=writer, resends=resends)
    routes: list[BaseRoute] = [
        *ArtifactRoutes(artifacts).routes(),
        *DirectArtifactRoutes(
            direct=DirectArtifacts(database=database, writer=writer, storage=None),
            artifacts=artifacts,
            path_prefix="",
        ).routes(),
        *ExperimentRoutes(experiments).routes(),
        *RunRoutes(runs).routes(),
        *json_routes("POST", "/logged-models/search", _no_models, permission=Permission.READ),
    ]
    door = Door(FastAPI(), routes=routes, authenticator=Keys(), allowed_hosts=frozenset({"127.0.0.1"}))
    # asyncio turns Nagle's algorithm off only for a socket that says that it is TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(door, http="httptools", lifespan="off", log_level="warning")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        port = listener.getsockname()[1]
        base = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=60) as http:
                yield Served(http, port, database, writer, spool, artifacts, experiments, runs, workspace)
        finally:
            server.should_exit = True
            await running
            await writer.stop()
            spool.close()
            database.close()


@pytest_asyncio.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    """A server on each kind of database."""
    async with serving(database_url, tmp_path) as served:
        yield served


@pytest_asyncio.fixture
async def served_on_sqlite(tmp_path: Path) -> AsyncIterator[Served]:
    """A server, where the kind of database makes no difference."""
    async with serving(f"sqlite:///{tmp_path}/proxy.db", tmp_path) as served:
        yield served


async def eventually(is_so: Any) -> None:
    """Wait until it is so; fail if it does not come to that."""
    async with asyncio.timeout(120):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def exchange(port: int, request: bytes) -> bytes:
    """The answer to a request sent exactly as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 120)
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    answer += await reader.readexactly(length)
    writer.close()
    return answer


async def _in_one(content: bytes) -> AsyncIterator[bytes]:
    """All of it at once."""
    yield content


# --- up and down ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"small", LARGE], ids=["empty", "small", "large"])
async def test_a_file_comes_back_as_it_went_up(served: Served, content: bytes) -> None:
    """The bytes, their size and their MD5 are those of the upload."""
    _, root = await served.run()
    answer = await served.put(f"{root}/data/file.bin", content)
    assert (answer.status_code, answer.json()) == (200, {})
    down = await served.get(f"{root}/data/file.bin")
    assert (down.status_code, down.content) == (200, content)
    assert down.headers["content-length"] == str(len(content))
    assert down.headers["etag"] == f'"{hashlib.md5(content).hexdigest()}"'
    assert down.headers["accept-ranges"] == "bytes"


async def test_an_empty_file_may_come_in_chunks(served_on_sqlite: Served) -> None:
    """Stock clients send an empty file with `Transfer-Encoding: chunked` and no length."""
    _, root = await served_on_sqlite.run()
    request = (
        f"PUT {FILES}/{root}/empty HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert b" 200 OK" in await exchange(served_on_sqlite.port, request.encode())
    assert (await served_on_sqlite.get(f"{root}/empty")).content == b""


async def test_a_large_file_may_come_in_chunks(served: Served) -> None:
    """Without a length it is spooled all the same."""
    _, root = await served.run()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 7_000):
            yield LARGE[start : start + 7_000]

    assert (await served.http.put(f"{FILES}/{root}/f", content=pieces())).status_code == 200
    assert (await served.get(f"{root}/f")).content == LARGE
    assert len(served.spooled()) == 1


@pytest.mark.parametrize(
    "name",
    [
        "a b.txt",
        "räksmörgås.txt",
        "日本語/😀.bin",
        "100%.txt",
        "50%25",
        "a#b.txt",
        "a?b=c",
        "a+b&c;d=e",
        "%zz",
    ],
)
async def test_any_name_works_that_a_file_can_have(served: Served, name: str) -> None:
    """What the client encodes in the URL is decoded once and is then the name, everywhere."""
    run_id, root = await served.run()
    assert (await served.put(f"{root}/{name}", name.encode())).status_code == 200
    assert (await served.get(f"{root}/{name}")).content == name.encode()
    by_run = await served.http.get("/get-artifact", params={"run_id": run_id, "path": name})
    assert by_run.content == name.encode()
    folder, _, last = name.rpartition("/")
    assert await served.names(f"{root}/{folder}".rstrip("/")) == [last]
    assert [entry.upstream_path for entry in await served.entries(run_id)] == [name]  # type: ignore[union-attr]


async def test_the_door_to_the_ui_leads_to_the_same_files(served_on_sqlite: Served) -> None:
    """`/ajax-api` is the same table."""
    _, root = await served_on_sqlite.run()
    ajax = f"/ajax-api{FILES.removeprefix('/api')}"
    assert (await served_on_sqlite.http.put(f"{ajax}/{root}/f", content=b"x")).status_code == 200
    assert (await served_on_sqlite.get(f"{root}/f")).content == b"x"


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "1/../2",
        "%2e%2e/%2e%2e/etc/passwd",
        "1/r/artifacts/%252e%252e/x",
        "1/r/artifacts/..%2f..%2fx",
        "1/r/artifacts/..%5cx",
        "1/r/artifacts/a%5cb",
        "1/r/artifacts/a%00b",
        "1/r/artifacts/a%0a",
        "1/r/artifacts/a%0ab",
        "1/r/artifacts/C:/x",
        "1/r/artifacts/a//b",
        "1/r/artifacts/%ff",
        "/etc/passwd",
        "%2fetc/passwd",
        "1/r/artifacts/a%23/../../b",
        "x" * 5_001,
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_path_that_leads_out_is_refused(served_on_sqlite: Served, method: str, path: str) -> None:
    """No spelling of a way out of the root gets further than an error, and nothing is kept."""
    request = f"{method} {FILES}/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nx"
    answer = await exchange(served_on_sqlite.port, request.encode())
    assert answer.split(b" ", 2)[1] in (b"400", b"404")
    assert b"error_code" in answer
    assert await served_on_sqlite.rows("SELECT * FROM artifacts") == []


@pytest.mark.parametrize("path", ["../x", "%2e%2e/x", "/etc/passwd", "a\\b", "C:/x", "a//b"])
async def test_a_path_in_a_query_is_judged_alike(served_on_sqlite: Served, path: str) -> None:
    """Query parameters are paths too."""
    run_id, _ = await served_on_sqlite.run()
    await served_on_sqlite.model("m-1", None, None)
    api = "/ajax-api/2.0/mlflow"
    for url, params in [
        (FILES, {"path": path}),
        ("/get-artifact", {"run_id": run_id, "path": path}),
        (f"{api}/artifacts/list", {"run_id": run_id, "path": path}),
        ("/model-versions/get-artifact", {"name": "n", "version": "1", "path": path}),
        (f"{api}/logged-models/m-1/artifacts/files", {"artifact_file_path": path}),
        (f"{api}/logged-models/m-1/artifacts/directories", {"artifact_directory_path": path}),
    ]:
        answer = await served_on_sqlite.http.get(url, params=params)
        assert (answer.status_code, answer.json()["message"]) == (400, "Invalid path")


async def test_a_name_cannot_be_a_file_and_a_folder(served: Served) -> None:
    """Nobody could download both."""
    _, root = await served.run()
    await served.put(f"{root}/a/b", b"x")
    assert (await served.put(f"{root}/a", b"x")).status_code == 400
    assert (await served.put(f"{root}/a/b/c/d", b"x")).status_code == 400
    assert (await served.put(root, b"x")).status_code == 400
    assert (await served.put(f"{root}/a.b", b"x")).status_code == 200
    assert (await served.get(f"{root}/a")).status_code == 400
    assert await served.names(root) == ["a", "a.b"]


async def test_what_is_not_there_is_not_found(served_on_sqlite: Served) -> None:
    """With MLflow's code, which clients look at."""
    _, root = await served_on_sqlite.run()
    answer = await served_on_sqlite.get(f"{root}/MLmodel")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


# --- parts and conditions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99999999999", 0, None),
        ("bytes=100-199", 100, 200),
        ("bytes=59990-", 59_990, None),
        ("bytes=-7", -7, None),
        ("bytes=-999999999", 0, None),
    ],
)
@pytest.mark.parametrize("kept", ["inline", "spooled", "upstream"])
async def test_one_range_is_answered_with_its_part(
    served_on_sqlite: Served, kept: str, wanted: str, start: int, end: int | None
) -> None:
    """Wherever the bytes are."""
    served = served_on_sqlite
    run_id, root = await served.run()
    content = LARGE[:60_000] if kept == "inline" else LARGE
    await served.put(f"{root}/f", content)
    if kept == "upstream":
        await served.deliver(run_id)
        assert served.spooled() == []
    answer = await served.get(f"{root}/f", Range=wanted)
    assert (answer.status_code, answer.content) == (206, content[start:end])
    first = start % len(content) if start else 0
    assert (
        answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(content)}"
    )
    if kept == "upstream":
        assert served.workspace.reads == [(first, len(answer.content))]


@pytest.mark.parametrize("wanted", ["bytes=300000-", "bytes=300000-300001", "bytes=-0"])
async def test_a_range_outside_is_refused(served_on_sqlite: Served, wanted: str) -> None:
    """416 says how long the file is."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", LARGE)
    answer = await served_on_sqlite.get(f"{root}/f", Range=wanted)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */300000"


@pytest.mark.parametrize("wanted", ["bytes=0-1,3-4", "bytes=5-2", "bytes=-", "lines=1-2", "bytes=a-b", ""])
async def test_any_other_range_gets_the_whole(served_on_sqlite: Served, wanted: str) -> None:
    """As HTTP wants it for a range that is not understood."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", b"content")
    answer = await served_on_sqlite.get(f"{root}/f", Range=wanted)
    assert (answer.status_code, answer.content) == (200, b"content")


async def test_conditions_are_kept(served_on_sqlite: Served) -> None:
    """An unchanged file is not sent again, and a range of a changed one is the whole."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", b"content")
    etag = (await served_on_sqlite.get(f"{root}/f")).headers["etag"]
    assert (await served_on_sqlite.get(f"{root}/f", **{"If-None-Match": etag})).status_code == 304
    assert (await served_on_sqlite.get(f"{root}/f", **{"If-None-Match": '"x"'})).status_code == 200
    ranged = {"Range": "bytes=0-1", "If-Range": etag}
    assert (await served_on_sqlite.get(f"{root}/f", **ranged)).content == b"co"
    ranged["If-Range"] = '"other"'
    assert (await served_on_sqlite.get(f"{root}/f", **ranged)).content == b"content"


async def test_head_tells_without_sending(served_on_sqlite: Served) -> None:
    """The headers are those of the download."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f.txt", LARGE)
    answer = await served_on_sqlite.http.head(f"{FILES}/{root}/f.txt")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "300000"
    assert (await served_on_sqlite.http.head(f"{FILES}/{root}/g")).status_code == 404


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.txt", "text/plain"),
        ("MLmodel", "text/plain"),
        ("a.json", "text/plain"),
        ("a.html", "text/plain"),
        ("a.XHTML", "text/plain"),
        ("a.svg", "text/plain"),
        ("a.js", "text/plain"),
        ("a.png", "image/png"),
        ("a.webp", "image/webp"),
        ("a.pdf", "application/octet-stream"),
        ("a.swf", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_downloads_are_inert(served_on_sqlite: Served, name: str, expected: str) -> None:
    """Nothing a client uploaded can run in a browser on this server's name."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/{name}", b"<script>alert(1)</script>")
    headers = (await served_on_sqlite.get(f"{root}/{name}")).headers
    assert headers["content-type"] == expected
    assert headers["content-disposition"].startswith("attachment; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_the_name_to_save_under_is_safe(served_on_sqlite: Served) -> None:
    """A name cannot end its header."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f'{root}/é";x=.txt', b"x")
    header = (await served_on_sqlite.get(f'{root}/é";x=.txt')).headers["content-disposition"]
    assert header == "attachment; filename=\"e__x=.txt\"; filename*=UTF-8''%C3%A9%22%3Bx%3D.txt"


# --- listing --------------------------------------------------------------------------------


async def test_a_listing_looks_as_mlflows(served: Served) -> None:
    """Names relative to the folder, folders without a size, sorted; nothing is `{}`."""
    run_id, root = await served.run()
    for name in ["b/deep/er.txt", "b.txt", "a", "b/x", "B"]:
        await served.put(f"{root}/{name}", b"1234")
    assert (await served.http.get(FILES, params={"path": root})).json() == {
        "files": [
            {"path": "B", "is_dir": False, "file_size": 4},
            {"path": "a", "is_dir": False, "file_size": 4},
            {"path": "b", "is_dir": True},
            {"path": "b.txt", "is_dir": False, "file_size": 4},
        ]
    }
    for path in [f"{root}/none", f"{root}/a", "999"]:
        assert (await served.http.get(FILES, params={"path": path})).json() == {}
    by_run = await served.http.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run_id, "path": "b"})
    assert by_run.json() == {
        "root_uri": f"mlflow-artifacts:/{root}",
        "files": [{"path": "b/deep", "is_dir": True}, {"path": "b/x", "is_dir": False, "file_size": 4}],
    }
    unknown = await served.http.get("/api/2.0/mlflow/artifacts/list", params={"run_id": "f" * 32})
    assert unknown.status_code == 404


async def test_the_folders_above_runs_can_be_listed(served: Served) -> None:
    """An experiment's folder holds those of its runs and models, and what else was put there."""
    (first, root), (second, other) = await served.run(), await served.run()
    model_root = await served.model("m-1", None, None)
    for path in [f"{root}/f", f"{other}/f", f"{model_root}/f", "0/notes/n.txt", "top.txt"]:
        assert (await served.put(path, b"x")).status_code == 200
    assert await served.names() == ["0", "top.txt"]
    assert await served.names("0") == sorted([first, second, "models", "notes"])
    assert await served.names("0/models") == ["m-1"]
    assert await served.names(f"0/{first}") == ["artifacts"]


def _random_paths(seed: int) -> list[str]:
    """A tree over names that sort around the slash."""
    source = random.Random(seed)
    names = ["a", "a-", "a.", "a0", "a/", "A", "b", "é", "日", "\U0001f600", "~", " "]
    paths: set[str] = set()
    for _ in range(200):
        parts = [source.choice(names).strip("/") for _ in range(source.randint(1, 4))]
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        path = "/".join(parts)
        if not paths.intersection(above) and not any(other.startswith(f"{path}/") for other in paths):
            paths.add(path)
    return sorted(paths)


def _children(paths: list[str], folder: str) -> list[FolderEntry]:
    start = f"{folder}/" if folder else ""
    found: dict[str, FolderEntry] = {}
    for path in paths:
        if path.startswith(start):
            name, is_folder, _ = path[len(start) :].partition("/")
            found[name] = FolderEntry(name, bool(is_folder), None if is_folder else len(path))
    return sorted(found.values(), key=lambda entry: entry.name)


async def test_every_folder_of_a_random_tree_is_listed_right(served: Served) -> None:
    """Seeking finds exactly what looking at every path finds."""
    for seed in range(5):
        paths = _random_paths(seed)

        def store(transaction: Transaction, paths: list[str] = paths, seed: int = seed) -> int:
            root_id = rows.find_or_add_root(transaction, f"tree-{seed}")
            for path in paths:
                file = ArtifactFile(path, len(path), b"", b"", None, None)
                transaction.run_all([rows.put(transaction, root_id, file)])
            return root_id

        root_id = await served.writer.commit(Work(store))
        folders = {"", *("/".join(path.split("/")[:depth]) for path in paths for depth in range(1, 5))}
        for folder in folders:
            listed = await served.database.read(
                lambda transaction, root_id=root_id, folder=folder: rows.list_folder(  # type: ignore[misc]
                    transaction, root_id, folder
                )
            )
            assert listed == _children(paths, folder)


async def test_a_large_tree_costs_a_seek_for_each_folder(
    served_on_sqlite: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing reads what it answers, not the hundred thousand files below."""
    served = served_on_sqlite

    def store(transaction: Transaction) -> int:
        root_id = rows.find_or_add_root(transaction, "tree")
        paths = [f"checkpoints/{number % 4}/part-{number:06}" for number in range(100_000)]
        transaction.run_many(
            "INSERT INTO artifacts (root_id, path, size_bytes, md5, updated_at_ms) VALUES (?, ?, 1, '', 0)",
            [(root_id, path) for path in [*paths, "a.txt", "z.txt"]],
        )
        return root_id

    root_id = await served.writer.commit(Work(store))
    read = 0
    ask = Transaction.rows

    def counted(self: Transaction, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        nonlocal read
        found = ask(self, sql, parameters)
        read += len(found)
        return found

    monkeypatch.setattr(Transaction, "rows", counted)
    for folder, names in [("", ["a.txt", "checkpoints", "z.txt"]), ("checkpoints", ["0", "1", "2", "3"])]:
        entries = await served.database.read(
            lambda transaction, folder=folder: rows.list_folder(transaction, root_id, folder)  # type: ignore[misc]
        )
        assert [entry.name for entry in entries] == names
    assert read < 100
    deep = await served.database.read(
        lambda transaction: rows.list_folder(transaction, root_id, "checkpoints/2")
    )
    assert len(deep) == 25_000


# --- what is promised to the workspace ------------------------------------------------------


async def test_a_file_of_a_run_is_to_be_delivered(served: Served) -> None:
    """An entry on the run's artifact lane holds all that the delivery needs."""
    run_id, root = await served.run()
    await served.put(f"{root}/model/weights", LARGE)
    await served.put(f"{root}/note.txt", b"hello")
    large, small = await served.entries(run_id)
    assert isinstance(large, UploadArtifact)
    assert isinstance(small, UploadArtifact)
    assert (large.path, large.upstream_path) == ("model/weights", "model/weights")
    assert (large.size_bytes, large.md5) == (len(LARGE), hashlib.md5(LARGE).digest())
    assert [large.spool_name] == served.spooled()
    assert (small.spool_name, small.size_bytes) == (None, 5)
    assert await served.rows(
        "SELECT DISTINCT principal FROM journal_entries WHERE kind = 'UploadArtifact'"
    ) == [("admin",)]


async def test_the_first_delivery_waits_until_the_run_is_made(served: Served) -> None:
    """One barrier, on the first entry of the lane; the others come after it anyway."""
    run_id, root = await served.run()
    for name in ["a", "b"]:
        await served.put(f"{root}/{name}", b"x")
    lanes = (
        await served.rows("SELECT artifact_lane_id, data_lane_id FROM runs WHERE run_id = ?", (run_id,))
    )[0]
    barriers = await served.rows(
        "SELECT position, awaited_lane_id, awaited_position FROM barriers WHERE lane_id = ?", (lanes[0],)
    )
    assert barriers == [(1, lanes[1], 1)]


async def test_a_run_that_is_made_already_is_not_waited_for(served: Served) -> None:
    """There is nothing to wait for when its create is settled."""
    run_id, root = await served.run()
    await served.write(
        "UPDATE lanes SET settled_position = 1"
        " WHERE lane_id = (SELECT data_lane_id FROM runs WHERE run_id = ?)",
        (run_id,),
    )
    before = await served.rows("SELECT count(*) FROM barriers")
    await served.put(f"{root}/a", b"x")
    assert await served.rows("SELECT count(*) FROM barriers") == before
    assert len(await served.entries(run_id)) == 1


@pytest.mark.parametrize("content", [b"same", LARGE], ids=["small", "large"])
async def test_the_same_bytes_again_change_nothing(served: Served, content: bytes) -> None:
    """A client that repeats an upload costs neither an entry nor room."""
    run_id, root = await served.run()
    for _ in range(3):
        assert (await served.put(f"{root}/f", content)).status_code == 200
    assert len(await served.entries(run_id)) == 1
    assert len(served.spooled()) == (1 if content is LARGE else 0)
    assert served.spool.used_bytes == (len(content) if content is LARGE else 0)


async def test_other_bytes_replace_the_file(served: Served) -> None:
    """The new ones are delivered after the old, whose place in the spool is given up."""
    run_id, root = await served.run()
    versions = [LARGE, LARGE[::-1], b"small", LARGE]
    for content in versions:
        assert (await served.put(f"{root}/f", content)).status_code == 200
        assert (await served.get(f"{root}/f")).content == content
    entries = [entry for entry in await served.entries(run_id) if isinstance(entry, UploadArtifact)]
    assert [entry.md5 for entry in entries] == [hashlib.md5(content).digest() for content in versions]
    assert served.spooled() == [entries[-1].spool_name]


async def test_a_location_of_ones_own_is_known_by_its_runs(served: Served) -> None:
    """Whatever the experiment's location is, the run says where its root is."""
    location = "mlflow-artifacts:/teams/artifacts/vision"
    experiment_id = await served.experiments.create("vision", location, [], Origin())
    run_id, root = await served.run(str(experiment_id))
    assert root == f"teams/artifacts/vision/{run_id}/artifacts"
    await served.put(f"{root}/x/artifacts/f", b"x")
    assert [entry.upstream_path for entry in await served.entries(run_id)] == ["x/artifacts/f"]  # type: ignore[union-attr]


async def test_a_file_of_a_model_is_delivered_under_its_run(served: Served) -> None:
    """In the folder that the model has there."""
    run_id, _ = await served.run()
    root = await served.model("m-1", run_id, "models/m-1")
    await served.put(f"{root}/MLmodel", b"flavors: {}")
    await served.put(f"{root}/data/w", LARGE)
    entries = [entry for entry in await served.entries(run_id) if isinstance(entry, UploadArtifact)]
    assert [entry.path for entry in entries] == ["MLmodel", "data/w"]
    assert [entry.upstream_path for entry in entries] == ["models/m-1/MLmodel", "models/m-1/data/w"]
    await served.put(f"{root}/data/w", LARGE[::-1])
    await served.http.delete(f"{FILES}/{root}/data")
    assert (await served.entries(run_id))[-1] == DeleteArtifact(entries[0].root_id, "models/m-1/data/w")


@pytest.mark.parametrize(
    "path", ["0/traces/tr-1/artifacts/traces.json", "0/" + "f" * 32 + "/artifacts/f", "x", "a/b"]
)
async def test_everything_else_is_kept_here_only(served: Served, path: str) -> None:
    """Traces, runs that nobody knows and files anywhere are stored, and promised to nobody."""
    assert (await served.put(path, LARGE)).status_code == 200
    assert (await served.get(path)).content == LARGE
    assert await served.all_entries() == 0


async def test_a_run_shaped_path_in_another_place_is_not_the_runs(served: Served) -> None:
    """An id alone does not open a run's root: the run must say that the folder is its own."""
    run_id, _ = await served.run()
    await served.put(f"elsewhere/{run_id}/artifacts/f", b"x")
    assert await served.entries(run_id) == []
    listed = await served.http.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run_id})
    assert "files" not in listed.json()


async def test_a_model_without_a_run_is_kept_here_only(served_on_sqlite: Served) -> None:
    """The workspace has no place for it."""
    root = await served_on_sqlite.model("m-1", None, None)
    await served_on_sqlite.put(f"{root}/MLmodel", b"x")
    assert await served_on_sqlite.all_entries() == 0


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
async def test_nothing_is_written_to_a_deleted_run(served: Served, content: bytes) -> None:
    """As with every other write, and the bytes are not kept."""
    run_id, root = await served.run()
    await served.runs.delete(run_id, None)
    answer = await served.put(f"{root}/f", content)
    assert answer.status_code == 400
    assert "must be in the 'active' state" in answer.json()["message"]
    assert served.spooled() == []
    assert await served.rows("SELECT * FROM artifacts") == []


async def test_a_file_that_another_replica_is_writing_is_waited_for(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    """The bytes that the later one replaces go, though nobody had seen them when its upload arrived."""
    url = make_database("postgres")
    async with serving(url, tmp_path) as served:
        run_id, root = await served.run()
        await served.put(f"{root}/another", b"x")
        sql = "SELECT root_id, lane_id FROM artifact_roots JOIN lanes ON subject_id = run_pk AND kind = ?"
        [(root_id, lane_id)] = await served.rows(sql, ("run_artifacts",))
        earlier = await served.spool.receive(_in_one(LARGE[::-1]), len(LARGE))
        other = Database(url)
        with other.writing(0) as transaction:
            lock_lanes(transaction, [lane_id])
            file = ArtifactFile("f", len(LARGE), earlier.md5, None, earlier.spool_name, None)
            transaction.run_all([rows.put(transaction, root_id, file)])
            upload = asyncio.create_task(served.put(f"{root}/f", LARGE))
            done, _ = await asyncio.wait([upload], timeout=0.5)
            assert not done
        other.close()
        assert (await upload).status_code == 200
        assert (await served.get(f"{root}/f")).content == LARGE
        assert len(served.spooled()) == 1
        assert len(await served.entries(run_id)) == 2


async def test_a_run_deleted_during_an_upload_takes_nothing(served_on_sqlite: Served) -> None:
    """What the transaction finds counts, and what had arrived is given up."""
    run_id, root = await served_on_sqlite.run()

    async def pieces() -> AsyncIterator[bytes]:
        yield LARGE
        await served_on_sqlite.runs.delete(run_id, None)
        yield LARGE

    answer = await served_on_sqlite.http.put(f"{FILES}/{root}/f", content=pieces())
    assert answer.status_code == 400
    assert served_on_sqlite.spooled() == []
    assert served_on_sqlite.spool.used_bytes == 0


async def test_deleting_is_delivered_and_frees_the_spool(served: Served) -> None:
    """A folder goes with all that is in it; what is missing is deleted already."""
    run_id, root = await served.run()
    for name in ["d/a", "d/e/b", "d.txt", "d0"]:
        await served.put(f"{root}/{name}", LARGE)
    uploads = len(await served.entries(run_id))
    for path in [f"{root}/d/", f"{root}/d", f"{root}/none", "none"]:
        answer = await served.http.delete(f"{FILES}/{path}")
        assert (answer.status_code, answer.json()) == (200, {})
    deleted = (await served.entries(run_id))[uploads:]
    assert sorted(entry.upstream_path for entry in deleted) == ["d/a", "d/e/b"]  # type: ignore[union-attr]
    assert await served.names(root) == ["d.txt", "d0"]
    assert len(served.spooled()) == 2
    await served.http.delete(f"{FILES}/{root}")
    assert await served.names(root) == []
    assert served.spooled() == []


async def test_a_large_folder_is_deleted_in_slices(served_on_sqlite: Served) -> None:
    """No matter how many files there are."""
    served = served_on_sqlite
    run_id, root = await served.run()
    await served.put(f"{root}/d/first", b"x")
    await served.writer.commit(
        Work(
            lambda transaction: transaction.run_many(
                "INSERT INTO artifacts (root_id, path, size_bytes, md5, updated_at_ms)"
                " VALUES (1, ?, 1, '', 0)",
                [(f"d/{number}",) for number in range(999)],
            )
        )
    )
    assert (await served.http.delete(f"{FILES}/{root}/d")).status_code == 200
    assert await served.rows("SELECT count(*) FROM artifacts") == [(0,)]
    assert len(await served.entries(run_id)) == 1_001


# --- from the workspace ---------------------------------------------------------------------


async def test_delivered_bytes_are_read_from_the_workspace(served: Served) -> None:
    """The spool has given them up; the client does not notice."""
    run_id, root = await served.run()
    await served.put(f"{root}/f", LARGE)
    await served.deliver(run_id)
    assert served.spooled() == []
    assert (await served.get(f"{root}/f")).content == LARGE
    assert served.workspace.reads == [(0, len(LARGE))]


async def test_small_files_stay_here_when_they_are_delivered(served: Served) -> None:
    """They cost little and are read often."""
    run_id, root = await served.run()
    await served.put(f"{root}/f", b"small")
    entry = (await served.entries(run_id))[0]
    assert isinstance(entry, UploadArtifact)
    assert not await served.mark_delivered(entry)
    assert (await served.get(f"{root}/f")).content == b"small"
    assert await served.rows("SELECT upstream_path FROM artifacts") == [("f",)]
    assert served.workspace.reads == []


async def test_a_late_delivery_does_not_touch_newer_bytes(served: Served) -> None:
    """Neither other bytes nor the same ones, deleted and sent anew, are given up for an older upload."""
    run_id, root = await served.run()
    await served.put(f"{root}/f", LARGE)
    await served.http.delete(f"{FILES}/{root}/f")
    await served.put(f"{root}/f", LARGE)
    entry = (await served.entries(run_id))[0]
    assert isinstance(entry, UploadArtifact)
    assert not await served.mark_delivered(entry)
    assert len(served.spooled()) == 1
    assert (await served.get(f"{root}/f")).content == LARGE


async def test_a_delivery_between_finding_and_reading_goes_unnoticed(served: Served) -> None:
    """Bytes that left the spool meanwhile are read from where they went."""
    run_id, root = await served.run()
    await served.put(f"{root}/f", LARGE)
    found = await served.artifacts.find(f"{root}/f")
    await served.deliver(run_id)
    chunks = await served.artifacts.open(found, 10, 20)
    assert b"".join([chunk async for chunk in chunks]) == LARGE[10:30]


async def test_a_file_replaced_between_finding_and_reading_is_not_mixed(served: Served) -> None:
    """The headers that were promised would be wrong, so the client is asked to try again."""
    _, root = await served.run()
    await served.put(f"{root}/f", LARGE)
    found = await served.artifacts.find(f"{root}/f")
    await served.put(f"{root}/f", LARGE[::-1])
    with pytest.raises(Exception, match="Try again"):
        await served.artifacts.open(found)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UpstreamFailure(Verdict.WAIT, "FORBIDDEN", "no", status=403), 503),
        (UpstreamFailure(Verdict.RETRY, "CONNECTION_FAILED", "no"), 503),
        (UpstreamFailure(Verdict.PARK, DOES_NOT_EXIST, "no", status=404), 404),
    ],
)
async def test_a_failing_workspace_is_our_affair(
    served_on_sqlite: Served, failure: UpstreamFailure, status: int
) -> None:
    """A client sees that the bytes cannot be had now, never a refusal of our own credential."""
    run_id, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", LARGE)
    await served_on_sqlite.deliver(run_id)
    served_on_sqlite.workspace.failure = failure
    answer = await served_on_sqlite.get(f"{root}/f")
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) is (status == 503)


async def test_a_workspace_that_gives_nothing_is_not_taken_for_an_empty_file(
    served_on_sqlite: Served,
) -> None:
    """No answer is begun that could not be finished."""
    run_id, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", LARGE)
    await served_on_sqlite.deliver(run_id)
    served_on_sqlite.workspace.files[run_id, "f"] = b""
    assert (await served_on_sqlite.get(f"{root}/f")).status_code == 503


async def test_without_a_workspace_delivered_bytes_wait(tmp_path: Path) -> None:
    """A server whose workspace was taken away says why."""
    async with serving(f"sqlite:///{tmp_path}/proxy.db", tmp_path, has_workspace=False) as served:
        run_id, root = await served.run()
        await served.put(f"{root}/f", LARGE)
        await served.deliver(run_id)
        answer = await served.get(f"{root}/f")
        assert answer.status_code == 503
        assert "no workspace is configured" in answer.json()["message"]


# --- by owner -------------------------------------------------------------------------------


async def test_files_are_found_by_their_owner(served: Served) -> None:
    """By run under either name, by logged model, and by model version whatever its source is."""
    run_id, root = await served.run()
    model_root = await served.model("m-1", run_id, "models/m-1")
    await served.put(f"{root}/model/MLmodel", b"of the run")
    await served.put(f"{model_root}/MLmodel", b"of the model")
    await served.write(
        "INSERT INTO registered_models (model_pk, name, creation_timestamp_ms, last_updated_timestamp_ms,"
        " born, upstream_name, lane_id) VALUES (?, 'my model', 0, 0, 'proxy', 'my-model', 1)",
        (1,),
    )
    sources = [
        (f"mlflow-artifacts:/{root}/model", None),
        (f"runs:/{run_id}/model", None),
        ("models:/m-1", None),
        ("models:/m-1", f"mlflow-artifacts:/{model_root}/"),
        ("s3://bucket/model", None),
        (f"runs:/{run_id}/../x", None),
    ]
    for version, (source, location) in enumerate(sources, 1):
        await served.write(
            "INSERT INTO model_versions (model_pk, version, creation_timestamp_ms, last_updated_timestamp_ms,"
            " current_stage, source, storage_location, status) VALUES (1, ?, 0, 0, 'None', ?, ?, 'READY')",
            (version, source, location),
        )
    api = "/ajax-api/2.0/mlflow"
    for url in ["/get-artifact", f"{api}/get-artifact"]:
        for name in ["run_id", "run_uuid"]:
            answer = await served.http.get(url, params={name: run_id, "path": "model/MLmodel"})
            assert answer.content == b"of the run"
    for url in ["/model-versions/get-artifact", f"{api}/model-versions/get-artifact"]:
        found = [
            await served.http.get(url, params={"name": "my model", "version": version, "path": "MLmodel"})
            for version in range(1, 8)
        ]
        assert [answer.content for answer in found[:4]] == [b"of the run"] * 2 + [b"of the model"] * 2
        assert [answer.status_code for answer in found[4:]] == [400, 400, 404]
    answer = await served.http.get(
        f"{api}/logged-models/m-1/artifacts/files", params={"artifact_file_path": "MLmodel"}
    )
    assert answer.content == b"of the model"
    answer = await served.http.get(f"{api}/logged-models/m-1/artifacts/directories")
    assert answer.json() == {
        "root_uri": f"mlflow-artifacts:/{model_root}/",
        "files": [{"path": "MLmodel", "is_dir": False, "file_size": 12}],
    }
    assert (await served.http.get(f"{api}/logged-models/m-2/artifacts/directories")).status_code == 404


async def test_the_ui_stores_a_file_of_a_run(served: Served) -> None:
    """It comes as JSON with the run's id beside it, is read back at once, and is to be delivered."""
    run_id, root = await served.run()
    url = "/ajax-api/2.0/mlflow/upload-artifact"
    name = {"run_uuid": run_id, "path": "tables/eval_results_table.json"}
    table = {"columns": ["input"], "data": [["Grüße"]]}
    assert (await served.http.post(url, params=name, json=table)).json() == {}
    assert (await served.get(f"{root}/tables/eval_results_table.json")).json() == table
    [operation] = await served.entries(run_id)
    assert isinstance(operation, UploadArtifact)
    assert operation.upstream_path == "tables/eval_results_table.json"
    for params, content, status in [
        (name, b"", 400),
        ({"run_uuid": run_id, "path": "../x"}, b"x", 400),
        ({"run_uuid": run_id}, b"x", 400),
        ({"path": "x"}, b"x", 400),
        ({"run_uuid": "0" * 32, "path": "x"}, b"x", 404),
        (name, b"x" * (10 * MIB + 1), 413),
    ]:
        assert (await served.http.post(url, params=params, content=content)).status_code == status
    foreign = {"Origin": "https://elsewhere.example"}
    assert (await served.http.post(url, params=name, content=b"x", headers=foreign)).status_code == 403
    assert await served.names(f"{root}/tables") == ["eval_results_table.json"]


async def test_what_is_missing_in_a_request_is_named(served_on_sqlite: Served) -> None:
    """In MLflow's words."""
    for url, missing in [
        ("/get-artifact?run_id=x", "path"),
        ("/get-artifact?path=x", "run_id"),
        ("/model-versions/get-artifact?name=n&path=x", "version"),
    ]:
        answer = await served_on_sqlite.http.get(url)
        assert answer.status_code == 400
        assert f"Missing value for required parameter '{missing}'" in answer.json()["message"]


@pytest.mark.parametrize("call", ["mpu/create", "mpu/complete", "mpu/abort"])
async def test_multipart_uploads_are_declined(served_on_sqlite: Served, call: str) -> None:
    """In the words on which clients fall back to one upload."""
    body = {"path": "f", "num_parts": 1, "upload_id": "x"}
    answer = await served_on_sqlite.http.post(f"/api/2.0/mlflow-artifacts/{call}/1/r/artifacts", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")
    assert answer.json()["message"].startswith("Multipart upload is not supported")


async def test_presigned_urls_are_declined(served_on_sqlite: Served) -> None:
    """Clients then go through the server."""
    http = served_on_sqlite.http
    answers = [await http.get("/api/2.0/mlflow-artifacts/presigned/1/r/artifacts/f")]
    for kind in ("download", "upload"):
        url = f"/api/2.0/mlflow/artifacts/presigned-{kind}-url"
        answers.append(await http.post(url, json={"run_id": "r", "path": "f"}))
    for answer in answers:
        assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


async def test_a_key_that_may_read_may_not_write(served_on_sqlite: Served) -> None:
    """Whatever changes files asks for more than reading."""
    _, root = await served_on_sqlite.run()
    await served_on_sqlite.put(f"{root}/f", b"x")
    reader = {"Authorization": "Bearer reader"}
    base = "/api/2.0/mlflow-artifacts"
    for method, url in [
        ("PUT", f"{FILES}/{root}/f"),
        ("DELETE", f"{FILES}/{root}/f"),
        ("POST", f"{base}/mpu/create/{root}/f"),
    ]:
        assert (await served_on_sqlite.http.request(method, url, headers=reader)).status_code == 403
    assert (await served_on_sqlite.get(f"{root}/f", **reader)).content == b"x"
    routes: list[Endpoint] = ArtifactRoutes(served_on_sqlite.artifacts).routes()
    writing = {route.path for route in routes if not {"GET", "HEAD"} & set(route.methods or ())}
    assert all(
        route.permission is (Permission.READ if "GET" in (route.methods or ()) else Permission.WRITE)
        for route in routes
    )
    assert len(writing) == 3


# --- bounds ---------------------------------------------------------------------------------


async def test_what_cannot_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    """The answer comes although the client has sent no byte of its file."""
    async with serving(f"sqlite:///{tmp_path}/proxy.db", tmp_path, room=MIB) as served:
        _, root = await served.run()
        request = f"PUT {FILES}/{root}/f HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MIB + 1}\r\n\r\n"
        answer = await exchange(served.port, request.encode())
        assert b" 507 " in answer.split(b"\r\n", 1)[0]
        assert b"RESOURCE_EXHAUSTED" in answer
        assert (await served.put(f"{root}/f", b"x" * MIB)).status_code == 200
        assert (await served.put(f"{root}/g", LARGE)).status_code == 507
        assert (await served.put(f"{root}/small", b"x" * 65_536)).status_code == 200


async def test_what_turns_out_not_to_fit_leaves_nothing(tmp_path: Path) -> None:
    """An upload of unknown length is refused when the room ends."""
    async with serving(f"sqlite:///{tmp_path}/proxy.db", tmp_path, room=MIB) as served:
        run_id, root = await served.run()

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield LARGE

        assert (await served.http.put(f"{FILES}/{root}/f", content=pieces())).status_code == 507
        assert served.spooled() == []
        assert served.spool.used_bytes == 0
        assert await served.entries(run_id) == []


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nf4240\r\n"]
)
async def test_a_client_that_goes_away_leaves_nothing(served_on_sqlite: Served, framing: bytes) -> None:
    """Half an upload is no file, no entry, and takes no room."""
    run_id, root = await served_on_sqlite.run()
    _, writer = await asyncio.open_connection("127.0.0.1", served_on_sqlite.port)
    writer.write(f"PUT {FILES}/{root}/f HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode() + framing)
    writer.write(b"x" * 900_000)
    await writer.drain()
    await eventually(served_on_sqlite.spooled)
    writer.transport.abort()
    await eventually(lambda: not served_on_sqlite.spooled())
    await eventually(lambda: not served_on_sqlite.spool.used_bytes)
    assert await served_on_sqlite.rows("SELECT * FROM artifacts") == []
    assert await served_on_sqlite.entries(run_id) == []


async def test_a_client_that_stops_downloading_stops_the_reading(served_on_sqlite: Served) -> None:
    """The rest of the file is not read for nobody."""
    served = served_on_sqlite
    run_id, root = await served.run()
    content = bytes(20 * MIB)
    await served.put(f"{root}/f", content)
    await served.deliver(run_id)
    given = ended = 0
    read = served.workspace.open_read

    async def watched(*arguments: Any) -> AsyncIterator[bytes]:
        nonlocal given, ended
        try:
            async for chunk in read(*arguments):
                given += len(chunk)
                yield chunk
        finally:
            ended += 1

    served.workspace.open_read = watched  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=65_536)
    writer.write(f"GET {FILES}/{root}/f HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    await eventually(lambda: ended)
    assert given < len(content)


@pytest.fixture
def peak_memory() -> Iterator[Any]:
    """Tells by how many MiB this process has grown at most since the test began."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")

    def field(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) // 1024

    def start() -> Any:
        Path("/proc/self/clear_refs").write_text("5")
        before = field("VmRSS")
        return lambda: field("VmHWM") - before

    return start


async def test_memory_stays_small_whatever_the_size(served_on_sqlite: Served, peak_memory: Any) -> None:
    """200 MB up and down, by client and server together, take less than 32 MiB."""
    size = int(os.environ.get("MLPROXY_TEST_ARTIFACT_MIB", "200")) * MIB
    served = served_on_sqlite
    served.spool.max_bytes = size
    _, root = await served.run()
    await served.put(f"{root}/warm", LARGE * 10)
    await served.get(f"{root}/warm")
    await served.http.delete(f"{FILES}/{root}/warm")
    chunk = os.urandom(65_536)
    growth = peak_memory()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(chunk)):
            yield chunk

    answer = await served.http.put(
        f"{FILES}/{root}/f", content=pieces(), headers={"Content-Length": str(size)}
    )
    assert answer.status_code == 200
    up = growth()
    received = 0
    async with served.http.stream("GET", f"{FILES}/{root}/f") as down:
        async for piece in down.aiter_raw():
            received += len(piece)
    assert received == size
    print(f"memory: up {up} MiB, up and down {growth()} MiB")
    assert growth() < MEMORY_MIB


# --- the stock client -----------------------------------------------------------------------

_CLIENT = """
import os, sys, tempfile
import mlflow
from mlflow import MlflowClient
client = MlflowClient()
run = client.create_run("0")
names = ["plain.txt", "a b.txt", "r\\u00e4ksm\\u00f6rg\\u00e5s.txt"]
names += ["100%.txt", "a+b&c;d=e.txt", "empty", "big.bin"]
with tempfile.TemporaryDirectory() as folder:
    for name in [*names, "a#b.txt"]:
        size = {"empty": 0, "big.bin": 3_000_000}.get(name, 10)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name.encode().ljust(size, b".")[:size])
        client.log_artifact(run.info.run_id, os.path.join(folder, name), "sub/folder")
    listed = [item.path for item in client.list_artifacts(run.info.run_id, "sub/folder")]
    assert listed == sorted("sub/folder/" + name for name in [*names, "a"]), listed
    assert [item.is_dir for item in client.list_artifacts(run.info.run_id)] == [True]
    with tempfile.TemporaryDirectory() as target:
        down = client.download_artifacts(run.info.run_id, "sub", target)
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                sent = file.read()
            with open(os.path.join(down, "folder", name), "rb") as file:
                assert file.read() == sent, name
        with open(client.download_artifacts(run.info.run_id, "sub/folder/a#b.txt", target), "rb") as file:
            assert file.read() == b"a#b.txt..."
client.log_text(run.info.run_id, "hello", "notes/n.txt")
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/n.txt") == "hello"
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
get_artifact_repository(run.info.artifact_uri).delete_artifacts("sub")
assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["notes"]
print("fine")
"""


async def test_the_stock_client_keeps_its_files_here(served_on_sqlite: Served) -> None:
    """Whatever a file is called, it comes back; `#` is cut off by the client itself, on both ways."""
    python = os.environ.get("MLPROXY_TEST_MLFLOW3_PYTHON")
    if not python:
        pytest.skip("MLPROXY_TEST_MLFLOW3_PYTHON names no interpreter with a stock client")
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{served_on_sqlite.port}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "NO_PROXY": "127.0.0.1",
        }
        script = await asyncio.create_subprocess_exec(
            python,
            "-c",
            _CLIENT,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(script.communicate(), 300)
    sys.stdout.write(output.decode())
    assert script.returncode == 0
    assert output.decode().rstrip().endswith("fine")
