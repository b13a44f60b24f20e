"""Microsoft's storage client works against the blob endpoint, with the addresses handed out."""

import hashlib
import os
import time
from pathlib import Path

import httpx
import pytest
from api import Api
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from tests.support.emulator import EmulatorProcess

MIB = 1 << 20


def blob_client(uri: str) -> BlobClient:
    """Microsoft's client on an address, without its retries."""
    return BlobClient.from_blob_url(uri, retry_total=0, connection_data_block_size=MIB)


@pytest.fixture
def new_blob(api: Api, run_id: str) -> BlobClient:
    """A client on a fresh write address."""
    return blob_client(api.content_uri(run_id, "a/b ö%.bin"))


def test_a_small_blob_keeps_bytes_and_md5(
    new_blob: BlobClient, emulator: EmulatorProcess, run_id: str
) -> None:
    """What one PUT writes comes back whole, with the MD5 of its bytes, and inspection knows its digests."""
    new_blob.upload_blob(b"hello", content_settings=ContentSettings(content_type="text/plain"))
    assert new_blob.download_blob().readall() == b"hello"
    settings = new_blob.get_blob_properties().content_settings
    assert bytes(settings.content_md5) == hashlib.md5(b"hello").digest()
    assert settings.content_type == "text/plain"
    (stored,) = emulator.run(run_id)["artifacts"]
    assert stored["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert stored["md5"] == hashlib.md5(b"hello").hexdigest()


def test_a_large_blob_is_uploaded_in_blocks(
    new_blob: BlobClient, emulator: EmulatorProcess, run_id: str, tmp_path: Path
) -> None:
    """Above 64 MiB the client stages blocks; the commit joins them and keeps the MD5 the client gave."""
    file = tmp_path / "large"
    file.write_bytes(os.urandom(MIB) * 70)
    digest = hashlib.md5(file.read_bytes()).digest()
    with file.open("rb") as source:
        new_blob.upload_blob(source, content_settings=ContentSettings(content_md5=bytearray(digest)))
    puts = [call for call in emulator.calls() if "comp=block&" in call["query"]]
    assert len(puts) == 18
    properties = new_blob.get_blob_properties()
    assert properties.size == 70 * MIB
    assert bytes(properties.content_settings.content_md5) == digest
    (stored,) = emulator.run(run_id)["artifacts"]
    assert stored["md5"] == digest.hex()
    with (tmp_path / "back").open("wb") as sink:
        new_blob.download_blob().readinto(sink)
    assert (tmp_path / "back").read_bytes() == file.read_bytes()


def test_ranges(new_blob: BlobClient) -> None:
    """A range is answered with that part; one beyond the end with 416."""
    new_blob.upload_blob(b"0123456789")
    assert new_blob.download_blob(offset=3, length=4).readall() == b"3456"
    with pytest.raises(HttpResponseError) as refused:
        new_blob.download_blob(offset=10, length=1)
    assert refused.value.status_code == 416
    assert refused.value.error_code == "InvalidRange"


def test_a_blob_is_not_overwritten_by_accident(new_blob: BlobClient) -> None:
    """If-None-Match refuses a second upload; overwriting on purpose works."""
    new_blob.upload_blob(b"one")
    with pytest.raises(ResourceExistsError) as refused:
        new_blob.upload_blob(b"two")
    assert refused.value.error_code == "BlobAlreadyExists"
    new_blob.upload_blob(b"three", overwrite=True)
    assert new_blob.download_blob().readall() == b"three"


def test_if_match(new_blob: BlobClient) -> None:
    """A stale ETag is refused with 412, a current one is not."""
    old = new_blob.upload_blob(b"one")["etag"]
    new = new_blob.upload_blob(b"two", overwrite=True)["etag"]
    with pytest.raises(HttpResponseError) as refused:
        new_blob.download_blob(etag=old, match_condition=MatchConditions.IfNotModified)
    assert refused.value.status_code == 412
    found = new_blob.download_blob(etag=new, match_condition=MatchConditions.IfNotModified)
    assert found.readall() == b"two"


def test_a_damaged_body_is_refused(new_blob: BlobClient) -> None:
    """A body that does not have the MD5 it claims is not stored."""
    answer = httpx.put(
        new_blob.url,
        content=b"damaged",
        headers={"x-ms-blob-type": "BlockBlob", "Content-MD5": "XUFAKrxLKna5cZ2REBfFkg=="},
    )
    assert (answer.status_code, answer.headers["x-ms-error-code"]) == (400, "Md5Mismatch")
    assert "<Code>Md5Mismatch</Code>" in answer.text
    with pytest.raises(ResourceNotFoundError):
        new_blob.download_blob()


def test_staged_blocks_are_listed_and_committed(new_blob: BlobClient) -> None:
    """A block list names what is staged; the commit joins it in the order given, and may be repeated."""
    new_blob.stage_block("one", b"1")
    new_blob.stage_block("two", b"22")
    committed, staged = new_blob.get_block_list("all")
    assert committed == []
    assert [(block.id, block.size) for block in staged] == [("one", 1), ("two", 2)]
    order = [BlobBlock("two"), BlobBlock("one")]
    new_blob.commit_block_list(order)
    new_blob.commit_block_list(order)
    assert new_blob.download_blob().readall() == b"221"
    committed, staged = new_blob.get_block_list("all")
    assert [block.id for block in committed] == ["two", "one"]
    assert staged == []


def test_an_unknown_block_is_refused(new_blob: BlobClient) -> None:
    """A list that names a block nobody staged makes no blob."""
    with pytest.raises(HttpResponseError) as refused:
        new_blob.commit_block_list([BlobBlock("nothing")])
    assert refused.value.error_code == "InvalidBlockList"


def test_an_expired_address_is_refused(api: Api, run_id: str) -> None:
    """After its expiry an address is answered 403 AuthenticationFailed, in XML."""
    api.emulator.settings(write_sas_seconds=1.0)
    blob = blob_client(api.content_uri(run_id, "late.txt"))
    time.sleep(1.2)
    with pytest.raises(HttpResponseError) as refused:
        blob.upload_blob(b"late")
    assert refused.value.status_code == 403
    assert refused.value.error_code == "AuthenticationFailed"


def test_an_address_allows_only_what_it_says(api: Api, run_id: str, new_blob: BlobClient) -> None:
    """A read address does not write or delete, and an altered one does nothing."""
    new_blob.upload_blob(b"x")
    uri = api.read_uri(run_id, "a/b ö%.bin")
    reader = blob_client(uri)
    assert reader.download_blob().readall() == b"x"
    with pytest.raises(HttpResponseError) as refused:
        reader.upload_blob(b"y", overwrite=True)
    assert refused.value.status_code == 403
    with pytest.raises(HttpResponseError) as refused:
        reader.delete_blob()
    assert refused.value.status_code == 403
    with pytest.raises(HttpResponseError) as refused:
        blob_client(uri.replace("sp=r", "sp=rw")).upload_blob(b"y", overwrite=True)
    assert refused.value.error_code == "AuthenticationFailed"


def test_memory_stays_flat(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """A body of 300 MiB passes through without being held."""
    before = peak_bytes(emulator.pid)
    uri = api.content_uri(run_id, "huge.bin")
    chunk = bytes(MIB)
    headers = {"x-ms-blob-type": "BlockBlob", "Content-Length": str(300 * MIB)}
    answer = httpx.put(uri, content=(chunk for _ in range(300)), headers=headers, timeout=60)
    assert answer.status_code == 201
    received = 0
    with httpx.stream("GET", api.read_uri(run_id, "huge.bin"), timeout=60) as download:
        for part in download.iter_raw():
            received += len(part)
    assert received == 300 * MIB
    assert peak_bytes(emulator.pid) - before < 60 * MIB


def peak_bytes(pid: int) -> int:
    """The most memory a process has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
