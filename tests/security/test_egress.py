"""The server calls nobody but its workspace: no address that a client names, no redirect, no other host."""

import uuid
from collections.abc import Iterator

import httpx
import pytest

from server.domain.clock import SystemClock
from server.upstream.blobs import checked_blob_url, read_stored
from server.upstream.channel import Channel, create_http_client
from server.upstream.failures import UpstreamFailure
from tests.support.receiver import Receiver
from tests.support.server import ServerProcess

MLFLOW = "/api/2.0/mlflow/"
INSIDE = [
    "http://127.0.0.1:{port}/x", "https://127.0.0.1:{port}/x", "https://localhost:{port}/x", "https://[::1]:{port}/x",
    "https://169.254.169.254/metadata/identity/oauth2/token", "http://169.254.169.254/metadata/instance",
    "https://168.63.129.16/machine", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/",
    "https://[fd00::1]/", "https://[fe80::1]/", "https://[::ffff:169.254.169.254]/", "https://[64:ff9b::a9fe:a9fe]/",
    "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://0/",
    "https://127.0.0.1.nip.io@127.0.0.1/", "https://user:pass@127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1:1/x",
    "ftp://127.0.0.1/x", "https://127.0.0.1\\@example.org/", "https://example.org#@127.0.0.1/", "https://localhost./",
    "https://metadata.google.internal/", "https://%31%32%37.0.0.1/", "//127.0.0.1/x", "https:///x", "https://[::]/",
]  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A host inside the network that nobody may make the server call."""
    with Receiver() as receiver:
        yield receiver


def _is_inside(template: str) -> bool:
    return "example.org#" not in template


@pytest.mark.parametrize("template", [text for text in INSIDE if _is_inside(text)])
@pytest.mark.parametrize("route", ["/api/2.0/mlflow/webhooks", "/api/2.0/mlproxy/webhooks"])
def test_a_webhook_leads_to_no_place_inside(
    server: ServerProcess, keys: dict[str, str], receiver: Receiver, template: str, route: str
) -> None:
    """Cloud metadata, loopback, private ranges, in whatever spelling: refused before anything is sent."""
    hook = {
        "name": f"hook-{uuid.uuid4().hex[:8]}",
        "url": template.format(port=receiver.port),
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
    }
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30) as client:
        answer = client.post(route, json=hook)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert receiver.received == []


SOURCES = [
    "http://127.0.0.1:{port}/model", "https://169.254.169.254/x", "s3://bucket/x", "ftp://127.0.0.1:{port}/x",
    "dbfs:/databricks/x", "gs://bucket/x", "abfss://c@127.0.0.1:{port}/x", "wasbs://c@127.0.0.1/x", "hdfs://127.0.0.1:{port}/",
]  # fmt: skip


@pytest.mark.parametrize("template", SOURCES)
def test_a_source_is_never_fetched(
    writer: httpx.Client, run_id: str, receiver: Receiver, template: str
) -> None:
    """A version may name a place elsewhere; the server never goes there, whoever asks for its files."""
    place = template.format(port=receiver.port)
    name = f"model-{uuid.uuid4().hex[:8]}"
    writer.post(MLFLOW + "registered-models/create", json={"name": name})
    made = writer.post(MLFLOW + "model-versions/create", json={"name": name, "source": place})
    assert made.status_code in (200, 400), made.text
    asked = writer.get(
        "/model-versions/get-artifact", params={"name": name, "version": "1", "path": "MLmodel"}
    )
    assert asked.status_code in (400, 404, 501), asked.text
    writer.post(MLFLOW + "experiments/create", json={"name": name, "artifact_location": place})
    dataset = {"name": "d", "digest": "1", "source_type": "http", "source": place}
    writer.post(MLFLOW + "runs/log-inputs", json={"run_id": run_id, "datasets": [{"dataset": dataset}]})
    tag = {"run_id": run_id, "key": "mlflow.source.name", "value": place}
    writer.post(MLFLOW + "runs/set-tag", json=tag)
    assert receiver.received == []


class _Tokens:
    async def token(self) -> str:
        return "canary-token"

    async def renew(self, refused: str) -> str:
        return refused


class _Recorder(httpx.AsyncBaseTransport):
    """Answers with a redirect to everywhere, and keeps what it was asked."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(307, headers={"location": self.location})


REDIRECTS = [
    "https://evil.example/x",
    "http://169.254.169.254/metadata",
    "//evil.example",
    "https://eastus.api.azureml.ms/",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("location", REDIRECTS)
async def test_a_redirect_is_not_followed(location: str) -> None:
    """The workspace's answer cannot send our token elsewhere, nor a signed address its bytes."""
    transport = _Recorder(location)
    async with httpx.AsyncClient(transport=transport, follow_redirects=False) as http:
        channel = Channel(
            origin="https://eastus.api.azureml.ms", tokens=_Tokens(), http=http, clock=SystemClock()
        )
        with pytest.raises(UpstreamFailure):
            await channel.request("GET", "https://eastus.api.azureml.ms/x")
        with pytest.raises(UpstreamFailure):
            async for _ in read_stored(http, "https://a.blob.core.windows.net/c/b?sig=x"):
                pass
    assert [str(request.url.host) for request in transport.asked] == [
        "eastus.api.azureml.ms",
        "a.blob.core.windows.net",
    ]
    assert "authorization" not in transport.asked[1].headers


FOREIGN = [
    "https://evil.example/x", "http://eastus.api.azureml.ms/x", "https://eastus.api.azureml.ms.evil.example/x",
    "https://eastus.api.azureml.ms@evil.example/x", "https://user@eastus.api.azureml.ms/x",
    "https://eastus.api.azureml.ms:444/x", "https://evil.example\\@eastus.api.azureml.ms/x",
    "//evil.example/x", "x",
]  # fmt: skip


@pytest.mark.asyncio
@pytest.mark.parametrize("url", FOREIGN)
async def test_the_token_goes_to_the_workspace_only(url: str) -> None:
    """A call to any other origin is not made."""
    transport = _Recorder("x")
    async with httpx.AsyncClient(transport=transport) as http:
        channel = Channel(
            origin="https://eastus.api.azureml.ms", tokens=_Tokens(), http=http, clock=SystemClock()
        )
        with pytest.raises(UpstreamFailure):
            await channel.request("GET", url)
    assert transport.asked == []


STORES = [
    "http://a.blob.core.windows.net/c/b?sig=x", "https://a.blob.core.windows.net.evil.example/c", "https://evil.example/c",
    "https://a.blob.core.windows.net@evil.example/c", "https://evil.example/?x=.blob.core.windows.net",
    "https://blob.core.windows.net/c", "https://127.0.0.1/c", "file:///etc/passwd", "https://[::1]/c",
    "https://user@a.blob.core.windows.net/c", "https://a.file.core.windows.net/c", "https://evilblob.core.windows.net/c",
]  # fmt: skip


@pytest.mark.parametrize("url", STORES)
def test_bytes_go_to_storage_only(url: str) -> None:
    """A signed address on another host is not used, whoever hands it out."""
    with pytest.raises(UpstreamFailure):
        checked_blob_url(url, is_loopback=False)


@pytest.mark.asyncio
async def test_the_servers_client_follows_nothing() -> None:
    """The one client that all upstream calls share."""
    async with create_http_client() as http:
        assert http.follow_redirects is False
        assert http.headers.get("authorization") is None
