"""Files that go straight to the workspace's storage keep the promises that streamed ones keep.

The servers here have room for one mebibyte of artifacts: what is larger can only have gone past them.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, wait_until

MEBIBYTE = 1024 * 1024
PART_BYTES = MEBIBYTE
CONTENT = os.urandom(5 * PART_BYTES // 2)
SETTINGS = {"MLPROXY_DIRECT_ARTIFACTS": "true", "MLPROXY_MAX_SPOOL_BYTES": MEBIBYTE}
NO_MULTIPART = "Multipart upload is not supported"
Json = dict[str, Any]


class Direct:
    """The calls of a client that uploads past the server, one at a time."""

    def __init__(self, server: ServerProcess, run: LoggedRun) -> None:
        self._base = f"{server.url}/api/2.0/mlflow-artifacts"
        self._run = run
        self._http = httpx.Client(trust_env=False, timeout=60)

    def call(self, kind: str, path: str, **fields: Any) -> httpx.Response:
        folder, _, name = f"{self._run.artifact_root}/{path}".rpartition("/")
        return self._http.post(
            f"{self._base}/mpu/{kind}/{quote(folder)}", json={"path": f"/home/ann/out/{name}", **fields}
        )

    def open(self, path: str, content: bytes = CONTENT) -> Json:
        """Begin an upload and put all its parts."""
        parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
        answer = self.call("create", path, num_parts=len(parts))
        assert answer.is_success, answer.text
        upload: Json = answer.json()
        for credential, part in zip(upload["credentials"], parts, strict=True):
            put = self._http.put(credential["url"], content=part, headers=credential["headers"])
            assert put.status_code == 201, put.text
        return upload

    def complete(self, path: str, upload: Json) -> httpx.Response:
        parts = [
            {"part_number": item["part_number"], "etag": "", "url": item["url"]}
            for item in upload["credentials"]
        ]
        return self.call("complete", path, upload_id=upload["upload_id"], parts=parts)

    def upload(self, path: str, content: bytes = CONTENT) -> None:
        answer = self.complete(path, self.open(path, content))
        assert answer.is_success, answer.text
        self._run.files[path] = hashlib.sha256(content).hexdigest()

    def presigned(self, path: str) -> httpx.Response:
        return self._http.get(f"{self._base}/presigned/{quote(f'{self._run.artifact_root}/{path}')}")

    def listed(self) -> list[Json]:
        answer = self._http.get(f"{self._base}/artifacts", params={"path": self._run.artifact_root})
        return list(answer.json().get("files", []))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def direct_server(
    request: pytest.FixtureRequest,
    make_database: MakeDatabase,
    module_emulator: EmulatorProcess,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    """A server that lets clients past it, on either database."""
    folder = tmp_path_factory.mktemp("direct")
    database = {"MLPROXY_DATABASE_URL": make_database("postgres")} if request.param == "postgres" else {}
    with deliver_to(module_emulator, folder, nursery, **SETTINGS, **database) as server:
        yield server
        said = server.log_file.read_text()
        assert not re.search(r"sig=(?!\[redacted)", said), "a signed address is in the log"


@pytest.fixture
def client(direct_server: ServerProcess) -> Iterator[Tracking]:
    """A connection to it."""
    connection = Tracking(direct_server.url)
    yield connection
    connection.close()


@pytest.fixture
def run(
    request: pytest.FixtureRequest, emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking
) -> LoggedRun:
    """A run that the workspace knows."""
    name = re.sub(r"\W", " ", request.node.name)
    made = client.create_run(client.create_experiment(name), name)
    drain_all(direct_server)
    return made


def test_a_direct_upload_is_there_at_once(
    emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """When it is complete it is listed with its size, read whole and in part, and in the workspace."""
    direct = Direct(direct_server, run)
    direct.upload("model/big file ü.bin")
    assert direct.listed() == [{"path": "model", "is_dir": True}]
    assert client.download(run, "model/big file ü.bin") == CONTENT
    url = f"{direct_server.url}/get-artifact"
    query = {"run_id": run.run_id, "path": "model/big file ü.bin"}
    part = httpx.get(url, params=query, headers={"Range": "bytes=1000000-1000009"}, trust_env=False)
    assert (part.status_code, part.content) == (206, CONTENT[1_000_000:1_000_010])
    assert part.headers["content-range"] == f"bytes 1000000-1000009/{len(CONTENT)}"
    client.end(run)
    drain_all(direct_server)
    assert_delivered(emulator, run)


def test_completing_twice_is_completing_once(
    emulator: EmulatorProcess, direct_server: ServerProcess, run: LoggedRun
) -> None:
    """A client whose answer was lost asks again and is told the same."""
    direct = Direct(direct_server, run)
    upload = direct.open("big.bin")
    assert [direct.complete("big.bin", upload).status_code for _ in range(3)] == [200] * 3
    assert direct.call("abort", "big.bin", upload_id=upload["upload_id"]).is_success
    drain_all(direct_server)
    assert run_of(emulator, run.run_id).files == {"big.bin": hashlib.sha256(CONTENT).hexdigest()}


def test_the_rest_is_streamed(
    emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """What is not surely nobody else's to write is refused in the words at which clients stream."""
    direct = Direct(direct_server, run)
    client.upload(run, "taken.txt", b"x")
    client.upload(run, "folder/inner.txt", b"x")
    drain_all(direct_server)
    on_their_way = "DELETE .*gone.txt|batch/metadata$|PATCH .*/runs/[^/]+$"
    emulator.add_fault(match=on_their_way, effect="delay", delay_seconds=300)
    client.upload(run, "on-its-way.txt", b"x")
    client.upload(run, "gone.txt", b"x")
    url = f"{direct_server.url}/api/2.0/mlflow-artifacts/artifacts/{run.artifact_root}/gone.txt"
    assert httpx.delete(url, trust_env=False).is_success
    fresh = client.create_run("0", "not in the workspace yet")
    cases = [(direct, path) for path in ("taken.txt", "on-its-way.txt", "gone.txt")]
    cases += [(Direct(direct_server, fresh), "big.bin")]
    for caller, path in cases:
        answer = caller.call("create", path, num_parts=3)
        assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED"), path
        assert answer.json()["message"].startswith(NO_MULTIPART)
    for path, parts in (("big.bin", 0), ("big.bin", 50_001)):
        assert direct.call("create", path, num_parts=parts).status_code == 501
    for path in ("folder", "taken.txt/below", "C:/up"):
        assert direct.call("create", path, num_parts=1).status_code == 400, path
    del run.files["gone.txt"]
    emulator.clear_faults()
    drain_all(direct_server)


def test_parts_must_be_in_place(direct_server: ServerProcess, run: LoggedRun) -> None:
    """An upload with a part missing, or of another file, is not completed, and nothing is listed."""
    direct = Direct(direct_server, run)
    upload = direct.call("create", "big.bin", num_parts=2).json()
    other = direct.open("other.bin")
    assert direct.complete("big.bin", upload).status_code == 400
    one_part = {**upload, "credentials": upload["credentials"][:1]}
    assert direct.complete("big.bin", one_part).status_code == 400
    assert direct.complete("big.bin", other).status_code == 404
    assert direct.complete("big.bin", {**upload, "upload_id": "0" * 32}).status_code == 404
    assert direct.listed() == []


def test_giving_up_leaves_nothing(
    emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """An upload that is given up is not listed in the workspace either, and its path is free again."""
    direct = Direct(direct_server, run)
    upload = direct.open("big.bin")
    assert run_of(emulator, run.run_id).files == {"big.bin": None}
    for _ in range(2):
        assert direct.call("abort", "big.bin", upload_id=upload["upload_id"]).is_success
    assert direct.complete("big.bin", upload).status_code == 404
    client.upload(run, "big.bin", b"small after all")
    client.end(run)
    drain_all(direct_server)
    assert_delivered(emulator, run)


def test_who_writes_the_path_meanwhile_wins(
    emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """A file that is streamed to the path during a direct upload stays, here and in the workspace."""
    direct = Direct(direct_server, run)
    early, late = direct.open("early.bin"), direct.open("late.bin")
    client.upload(run, "early.bin", b"streamed")
    assert direct.complete("early.bin", early).status_code == 409
    client.upload(run, "late.bin", b"streamed too")
    drain_all(direct_server)
    assert direct.complete("late.bin", late).status_code == 409
    client.end(run)
    drain_all(direct_server)
    assert_delivered(emulator, run)
    assert client.download(run, "late.bin") == b"streamed too"


def test_nothing_goes_to_a_deleted_run(
    direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """Neither is an upload begun nor completed."""
    direct = Direct(direct_server, run)
    upload = direct.open("big.bin")
    client.post("runs/delete", {"run_id": run.run_id})
    assert direct.complete("big.bin", upload).status_code == 400
    assert direct.call("create", "new.bin", num_parts=1).status_code == 400


def test_an_outage(emulator: EmulatorProcess, direct_server: ServerProcess, run: LoggedRun) -> None:
    """While the workspace fails, uploads are streamed; one that is under way is completed after it."""
    direct = Direct(direct_server, run)
    upload = direct.open("big.bin")
    emulator.add_fault(match=".*", effect="status", status=503)
    answer = direct.complete("big.bin", upload)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert direct.call("create", "other.bin", num_parts=1).status_code == 501
    assert direct.listed() == []
    emulator.clear_faults()
    assert direct.complete("big.bin", upload).status_code == 200
    run.files["big.bin"] = hashlib.sha256(CONTENT).hexdigest()
    drain_all(direct_server)
    assert run_of(emulator, run.run_id).files == run.files


def test_a_workspace_that_hangs_delays_little(
    emulator: EmulatorProcess, direct_server: ServerProcess, run: LoggedRun
) -> None:
    """A client that has to stream is told so within seconds."""
    emulator.add_fault(match="batch/metadata$", effect="delay", delay_seconds=300)
    answer = Direct(direct_server, run).call("create", "big.bin", num_parts=1)
    assert answer.status_code == 501
    assert answer.elapsed.total_seconds() < 25


def test_downloads(
    emulator: EmulatorProcess, direct_server: ServerProcess, client: Tracking, run: LoggedRun
) -> None:
    """A file that is only in the workspace is had by a signed address, every other from the server."""
    direct = Direct(direct_server, run)
    direct.upload("big.bin")
    client.upload(run, "small.txt", b"small")
    small = direct.presigned("small.txt").json()
    assert small == {
        "url": f"/api/2.0/mlflow-artifacts/artifacts/{run.artifact_root}/small.txt",
        "headers": {},
    }
    assert httpx.get(direct_server.url + small["url"], trust_env=False).content == b"small"
    answer = direct.presigned("big.bin").json()
    assert answer["file_size"] == len(CONTENT)
    got = httpx.get(answer["url"], headers={"Range": "bytes=5-9", **answer["headers"]}, trust_env=False)
    assert (got.status_code, got.content) == (206, CONTENT[5:10])
    assert httpx.put(answer["url"], content=b"x", trust_env=False).status_code == 403
    assert direct.presigned("absent.bin").status_code == 404

    asked = {"run_id": run.run_id, "path": "big.bin", "expiration": 60}
    presigned = client.post("artifacts/presigned-download-url", asked)
    assert presigned["file_size"] == len(CONTENT)
    assert httpx.get(presigned["presigned_url"], trust_env=False).content == CONTENT
    for change, status in (
        ({"expiration": 604_801}, 400),
        ({"path": "absent.bin"}, 404),
        ({"path": "small.txt"}, 501),
    ):
        assert client.try_post("artifacts/presigned-download-url", asked | change).status_code == status
    assert client.try_post("artifacts/presigned-upload-url", asked).status_code == 501
    emulator.add_fault(match=".*", effect="status", status=503)
    assert "file_size" not in direct.presigned("big.bin").json()


def test_a_crash_between_storage_and_store(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """A server that dies when storage has the file and the store has not completes it when asked again."""
    armed = {"MLPROXY_TEST_FAILPOINTS": "direct_upload.committed=kill"}
    with deliver_to(emulator, tmp_path, nursery, **SETTINGS, **armed) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("a direct crash"), "a direct crash")
        drain_all(server)
        direct = Direct(server, run)
        upload = direct.open("big.bin")
        with pytest.raises(httpx.TransportError):
            direct.complete("big.bin", upload)
        wait_until(lambda: not server.is_running, within=120, what="the server dead")
        server.restart(MLPROXY_TEST_FAILPOINTS=None)
        assert direct.listed() == []
        assert direct.complete("big.bin", upload).status_code == 200
        run.files["big.bin"] = hashlib.sha256(CONTENT).hexdigest()
        assert client.download(run, "big.bin") == CONTENT
        client.end(run)
        drain_all(server)
        assert_delivered(emulator, run)


def test_uploads_that_nobody_goes_on_with(
    emulator: EmulatorProcess, nursery: Nursery, tmp_path: Path
) -> None:
    """What a client that went away left in the workspace's list is taken out a day later."""
    with deliver_to(emulator, tmp_path, nursery, **SETTINGS) as server:
        client = Tracking(server.url)
        run = client.create_run(client.create_experiment("abandoned"), "abandoned")
        drain_all(server)
        direct = Direct(server, run)
        direct.open("left.bin")
        server.stop()
        age_uploads(tmp_path / "mlproxy.db")
        server.launch()
        direct.upload("kept.bin")
        drain_all(server)
        assert run_of(emulator, run.run_id).files == run.files


def age_uploads(database: Path) -> None:
    """Let all uploads have begun two days ago."""
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE direct_uploads SET created_at_ms = created_at_ms - 172800000")
    connection.close()
