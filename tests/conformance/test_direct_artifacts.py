"""A stock client that is offered direct transfers sends large files to storage itself, and reads them there.

The server has room for one mebibyte of artifacts, so a large file that was streamed would be refused.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.azurite import running_azurite
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess
from tests.support.workspace import run_of

MEBIBYTE = 1024 * 1024
SIZE = 12 * MEBIBYTE + 345
PARTS = 13
LARGE, SMALL = "large file ü.bin", "small.txt"
SMALL_DIGEST = hashlib.sha256(b"small").hexdigest()
FAST = {
    "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(MEBIBYTE),
    "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(MEBIBYTE),
    "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(MEBIBYTE),
}
BY_HAND = {"MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true"}
"""What a client of version 2 needs, which does not ask the server."""


@contextmanager
def workspace(storage: str, folder: Path) -> Iterator[EmulatorProcess]:
    """A workspace whose bytes are in its own storage, or in Azurite under real signatures."""
    with ExitStack() as running:
        endpoint = None
        if storage == "azurite":
            endpoint = running.enter_context(running_azurite(folder / "azurite"))
        yield running.enter_context(EmulatorProcess.start(folder / "emulator", blob_endpoint=endpoint))


def start(emulator: EmulatorProcess, folder: Path, **settings: object) -> ServerProcess:
    """A server that delivers to the workspace."""
    return ServerProcess.start(
        folder,
        MLPROXY_WORKSPACE=emulator.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        **emulator.environment(),
        **settings,
    )


@pytest.mark.parametrize(
    ("client", "storage", "variables"),
    [("mlflow3", "emulator", {}), ("mlflow3", "azurite", {}), ("mlflow2", "emulator", BY_HAND)],
)
def test_large_files_go_past_the_server(
    client: str, storage: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """Every byte arrives once, by parts, and is read back by ranges; the log holds no signature."""
    python, record_file = client_python(client), tmp_path / "record.json"
    direct = {"MLPROXY_DIRECT_ARTIFACTS": "true", "MLPROXY_MAX_SPOOL_BYTES": MEBIBYTE}
    with workspace(storage, tmp_path) as emulator, start(emulator, tmp_path / "server", **direct) as server:
        run_client(
            python,
            "direct_artifacts.py",
            str(record_file),
            folder=tmp_path / "client",
            MLFLOW_TRACKING_URI=server.url,
            **FAST,
            **variables,
        )
        assert server.cli("drain").returncode == 0
        assert server.status()["parked"] == 0
        assert not re.search(r"sig=(?!\[redacted)", server.log_file.read_text())
        record = json.loads(record_file.read_text())
        held, calls = run_of(emulator, record["run_id"]), emulator.calls()
    assert record["listed"] == {f"data/{LARGE}": SIZE, f"data/{SMALL}": 5}
    assert record["downloaded"] == {LARGE: record["sent"], SMALL: SMALL_DIGEST}
    assert (held.status, held.ended_last) == ("FINISHED", True)
    files = dict(held.files)
    assert files.pop(f"data/{SMALL}") == SMALL_DIGEST
    assert set(files.values()) == {record["sent"]}
    is_3 = client == "mlflow3"
    assert record.get("of model") == ({LARGE: record["sent"]} if is_3 else None)
    if storage == "emulator":
        # Each file is read once: in ranges by a client that asks for addresses, else through the server.
        assert count_blob_calls(calls) == {"PUT": PARTS * len(files), "GET": PARTS * 2 if is_3 else 1}


def count_blob_calls(calls: list[dict[str, Any]]) -> dict[str, int]:
    """How often a block of the large files was put, and how often bytes of them were read."""
    blobs = [call for call in calls if "/azureml/" in call["path"] and call["path"].endswith(LARGE)]
    blocks = [call for call in blobs if call["method"] == "PUT" and "comp=block&" in call["query"]]
    reads = [call for call in blobs if call["method"] == "GET"]
    assert sum(call["bytes"] for call in blocks) % SIZE == 0
    return {"PUT": len(blocks), "GET": len(reads)}


def test_nothing_is_offered_unless_it_is_set(tmp_path: Path) -> None:
    """Without the setting, or without a workspace, the server says that there is none of it."""
    for name, value in (("off", None), ("no-workspace", "true")):
        with ServerProcess.start(tmp_path / name, MLPROXY_DIRECT_ARTIFACTS=value) as server:
            info = httpx.get(f"{server.url}/api/3.0/mlflow/server-info", trust_env=False).json()
            assert (info["multipart_uploads_enabled"], info["multipart_downloads_enabled"]) == (False, False)
            for kind in ("create", "complete", "abort"):
                url = f"{server.url}/api/2.0/mlflow-artifacts/mpu/{kind}/0/x/artifacts"
                answer = httpx.post(url, json={"path": "f", "num_parts": 1}, trust_env=False)
                assert answer.status_code == 501
                assert answer.json()["message"].startswith("Multipart upload is not supported")
