"""With `--blob-endpoint` the bytes are in Azurite, under real signatures."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api import Api
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient

from tests.support.emulator import EmulatorProcess, free_port


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[str]:
    """Azurite's blob endpoint; skipped where the program is not installed."""
    program = os.environ.get("MLPROXY_TEST_AZURITE")
    if not program:
        pytest.skip("no Azurite: MLPROXY_TEST_AZURITE does not name the program")
    port = free_port()
    command = [program, "--location", str(tmp_path / "azurite"), "--silent", "--skipApiVersionCheck"]
    for service, service_port in (("blob", port), ("queue", free_port()), ("table", free_port())):
        command += [f"--{service}Port", str(service_port), f"--{service}Host", "127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_answer(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
    finally:
        # It keeps idle connections open and waits for them to end by themselves.
        process.kill()
        process.wait(10)


def await_answer(url: str) -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"{url} does not answer")


def test_bytes_are_in_azurite(azurite: str, tmp_path: Path) -> None:
    """Write addresses, read addresses and digests work; what is there is not overwritten."""
    with EmulatorProcess.start(tmp_path / "emulator", blob_endpoint=azurite) as emulator:
        api = Api(emulator)
        run_id = api.run(api.experiment("on azurite"))
        uri = api.content_uri(run_id, "a b/ö.txt")
        assert uri.startswith(f"{azurite}/azureml/ExperimentRun/dcid.{run_id}/")
        writer = BlobClient.from_blob_url(uri, retry_total=0)
        writer.upload_blob(b"hello")
        with pytest.raises(ResourceExistsError):
            writer.upload_blob(b"again")
        reader = BlobClient.from_blob_url(api.read_uri(run_id, "a b/ö.txt"), retry_total=0)
        assert reader.download_blob().readall() == b"hello"
        with pytest.raises(HttpResponseError):
            reader.upload_blob(b"no", overwrite=True)
        (stored,) = emulator.run(run_id)["artifacts"]
        assert (stored["size"], stored["md5"]) == (5, "5d41402abc4b2a76b9719d911017c592")
