"""Signed addresses: where bytes may go, and what never goes with them."""

import hashlib
import traceback

import httpx
import pytest

from server.domain.verdicts import Verdict
from server.upstream import blobs
from server.upstream.artifacts import UpstreamArtifacts, WriteTarget
from server.upstream.blobs import StoredArtifact, checked_blob_url, find_stored, read_stored
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.failures import UpstreamFailure
from server.upstream.workspace import WorkspaceAddress

BLOB = "https://account.blob.core.windows.net/azureml/ExperimentRun/dcid.r/a.txt?sv=1&sp=rcw&sig=CANARY"


@pytest.mark.parametrize(
    ("url", "is_loopback", "is_allowed"),
    [
        (BLOB, False, True),
        ("https://a.blob.core.chinacloudapi.cn/c/b?sig=x", False, True),
        ("https://a.blob.core.usgovcloudapi.net/c/b?sig=x", False, True),
        ("https://a.z12.blob.storage.azure.net/c/b?sig=x", False, True),
        ("https://A.BLOB.CORE.WINDOWS.NET/c/b", False, True),
        (BLOB.replace("https", "http"), False, False),
        ("https://blob.core.windows.net/c/b", False, False),
        ("https://a.blob.core.windows.net.evil.example/c/b", False, False),
        ("https://evil.example/a.blob.core.windows.net/c/b", False, False),
        ("https://a.blob.core.windows.net@evil.example/c", False, False),
        ("https://u:p@a.blob.core.windows.net/c", False, False),
        ("https://169.254.169.254/metadata", False, False),
        ("http://127.0.0.1:1/s.blob.core.windows.net/c/b", False, False),
        ("http://127.0.0.1:1/s.blob.core.windows.net/c/b", True, True),
        ("https://localhost:1/c/b", True, True),
        ("http://10.0.0.1/c/b", True, False),
        ("file:///etc/passwd", True, False),
        ("http://[::1/c", True, False),
        ("", True, False),
    ],
)
def test_bytes_go_to_blob_storage_only(url: str, is_loopback: bool, is_allowed: bool) -> None:
    """An address elsewhere is refused; this machine counts only for a workspace on this machine."""
    if is_allowed:
        assert checked_blob_url(url, is_loopback=is_loopback) == url
        return
    with pytest.raises(UpstreamFailure) as caught:
        checked_blob_url(url, is_loopback=is_loopback)
    assert (caught.value.verdict, caught.value.code) == (Verdict.PARK, "FOREIGN_BLOB_HOST")


@pytest.mark.asyncio
async def test_the_token_does_not_go_to_storage(connection: Connection, wire) -> None:
    """Reads from storage carry the signed address and no authorisation."""
    wire.replies(
        httpx.Response(200, json={"contentUri": BLOB}),
        httpx.Response(206, stream=httpx.ByteStream(b"abc")),
        httpx.Response(200, json={"contentUri": BLOB}),
        httpx.Response(200, headers={"content-length": "3"}),
    )
    artifacts = UpstreamArtifacts(connection)
    assert b"".join([chunk async for chunk in artifacts.open_read("e", "r", "a.txt", 0, 3)]) == b"abc"
    await artifacts.info("e", "r", "a.txt")
    to_storage = [request for request in wire.requests if request.url.host == "account.blob.core.windows.net"]
    assert [request.method for request in to_storage] == ["GET", "HEAD"]
    assert to_storage[0].headers["range"] == "bytes=0-2"
    assert not any("authorization" in request.headers for request in to_storage)


@pytest.mark.asyncio
async def test_an_address_on_a_foreign_host_is_not_used(connection: Connection, wire) -> None:
    """A workspace that points elsewhere gets nothing sent there."""
    wire.answer = lambda _: httpx.Response(200, json={"contentUri": "https://evil.example/x?sig=y"})
    with pytest.raises(UpstreamFailure):
        await UpstreamArtifacts(connection).info("e", "r", "a.txt")
    assert {request.url.host for request in wire.requests} == {"westeurope.api.azureml.ms"}


@pytest.mark.asyncio
async def test_a_listing_is_not_followed_to_another_host(connection: Connection, wire) -> None:
    """The next page is fetched, with the token, on the workspace's host only."""
    wire.answer = lambda _: httpx.Response(200, json={"value": [], "nextLink": "https://evil.example/p2"})
    with pytest.raises(UpstreamFailure) as caught:
        await UpstreamArtifacts(connection).list_paths("e", "r")
    assert (caught.value.code, len(wire.requests)) == ("FOREIGN_HOST", 1)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "error", "verdict"),
    [
        (403, blobs.SasRefusedError, Verdict.WAIT),
        (500, UpstreamFailure, Verdict.RETRY),
        (409, UpstreamFailure, Verdict.PARK),
    ],
)
async def test_storages_refusals_have_verdicts(
    http, wire, status: int, error: type, verdict: Verdict
) -> None:
    """Storage's own errors are failures like any other, and do not tell the signature."""
    wire.answer = lambda _: httpx.Response(status, headers={"x-ms-error-code": "Code"}, text=f"at {BLOB}")
    with pytest.raises(error) as caught:
        await find_stored(http, BLOB)
    assert (caught.value.verdict, caught.value.code) == (verdict, "Code")
    with pytest.raises(error) as caught:
        [chunk async for chunk in read_stored(http, BLOB)]
    assert "CANARY" not in str(caught.value)


@pytest.mark.asyncio
async def test_an_ignored_range_is_not_taken_for_the_part(http, wire) -> None:
    """A whole answer to a question for a part would be the wrong bytes."""
    wire.answer = lambda _: httpx.Response(200, content=b"whole")
    with pytest.raises(UpstreamFailure):
        [chunk async for chunk in read_stored(http, BLOB, 2, 2)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers", [{}, {"content-length": "x"}, {"content-length": "3", "content-md5": "?"}]
)
async def test_what_storage_does_not_tell_is_not_guessed(http, wire, headers: dict[str, str]) -> None:
    """Without a size, or with nonsense, an artifact is not taken as verified."""
    wire.answer = lambda _: httpx.Response(200, headers=headers, stream=httpx.ByteStream(b""))
    with pytest.raises(UpstreamFailure):
        await find_stored(http, BLOB)


@pytest.mark.asyncio
async def test_content_without_md5_is_described_without(http, wire) -> None:
    """Others write blobs without MD5."""
    wire.answer = lambda _: httpx.Response(200, headers={"content-length": "3"})
    assert await find_stored(http, BLOB) == StoredArtifact(3, None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("Artifact batch size exceeded the limit of 100", Verdict.PARK),
        ("Status for this run is system managed", Verdict.PARK),
    ],
)
async def test_a_refused_path_is_a_failure(
    connection: Connection, wire, message: str, verdict: Verdict
) -> None:
    """An error for the path inside a successful answer is not a success."""
    body = {"errors": {"a": {"error": {"code": "UserError", "message": message}}}}
    wire.answer = lambda _: httpx.Response(200, json=body)
    with pytest.raises(UpstreamFailure, match=message) as caught:
        await UpstreamArtifacts(connection).register("e", "r", "a")
    assert caught.value.verdict is verdict


@pytest.mark.asyncio
async def test_a_broken_upload_tells_no_signature(http: httpx.AsyncClient, tokens: TokenSource, wire) -> None:
    """Neither message nor traceback of a failed upload shows the signed address."""
    dead = "http://127.0.0.1:9/account/azureml/a?sp=rcw&sig=CANARY"
    wire.answer = lambda _: httpx.Response(
        200, json={"artifactContentInformation": {"a": {"contentUri": dead}}}
    )
    digest = hashlib.md5(b"x", usedforsecurity=False).digest()
    local = WorkspaceAddress("http://127.0.0.1:1", "s", "g", "w")
    artifacts = UpstreamArtifacts(Connection(local, tokens, http))
    with pytest.raises(UpstreamFailure) as caught:
        await artifacts.upload("e", "r", "a", b"x", 1, digest)
    await artifacts.aclose()
    assert caught.value.verdict is Verdict.RETRY
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in repr(WriteTarget(dead, is_new=True))
