"""With `--blob-endpoint` the bytes are in Azurite, under real signatures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api import Api
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobClient

from tests.support.azurite import running_azurite
from tests.support.emulator import EmulatorProcess


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[str]:
    """Azurite's blob endpoint; skipped where the program is not installed."""
    with running_azurite(tmp_path / "azurite") as endpoint:
        yield endpoint


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
