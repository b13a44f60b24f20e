"""The UI's files from a wheel to the browser, and the calls that only the UI makes."""

import gzip
import io
import math
import zipfile
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.bootstrap import Server, build
from server.services import ui_install
from server.services.ui_files import UiFiles
from server.services.ui_install import UiInstallError, install_ui
from server.settings import Settings

BUILD = "mlflow/server/js/build/"
LICENSE = "mlflow-3.18.0.dist-info/licenses/LICENSE.txt"
SCRIPT = b"console.log('a script');" * 200
CONTENT = {
    BUILD + "index.html": b"<!doctype html><script src='static-files/static/js/main.js'></script>",
    BUILD + "static/js/main.js": SCRIPT,
    BUILD + "static/media/logo.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    LICENSE: b"Apache License",
    "mlflow/__init__.py": b"raise SystemExit",
}


def make_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch, content: dict[Any, bytes] = CONTENT) -> Path:
    """A wheel that passes for the pinned one."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    monkeypatch.setattr(ui_install, "WHEEL_SHA256", sha256(held.getvalue()).hexdigest())
    wheel = folder / "mlflow.whl"
    wheel.write_bytes(held.getvalue())
    return wheel


# --- installing ---


def test_only_the_ui_and_its_license_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the wheel's files only the UI's build and the license end up in the folder."""
    folder = tmp_path / "ui"
    assert install_ui(folder, make_wheel(tmp_path, monkeypatch))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "3.18.0/LICENSE.txt",
        "3.18.0/build/index.html",
        "3.18.0/build/static/js/main.js",
        "3.18.0/build/static/js/main.js.gz",
        "3.18.0/build/static/media/logo.svg",
    }


def test_installing_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second installation finds the first and needs no wheel."""
    install_ui(tmp_path / "ui", make_wheel(tmp_path, monkeypatch))
    assert not install_ui(tmp_path / "ui", tmp_path / "absent.whl")


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    """A file whose hash is not the pinned one is not opened."""
    wheel = tmp_path / "mlflow.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(UiInstallError, match="is not the wheel of mlflow"):
        install_ui(tmp_path / "ui", wheel)
    assert list((tmp_path / "ui").iterdir()) == []


def test_absent_wheel_is_said_so(tmp_path: Path) -> None:
    """A wheel that is not there is named in the message."""
    with pytest.raises(UiInstallError, match=r"absent\.whl cannot be read"):
        install_ui(tmp_path / "ui", tmp_path / "absent.whl")


def _link() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo(BUILD + "link.js")
    link.external_attr = 0o120777 << 16
    return link


@pytest.mark.parametrize("name", [BUILD + "../../../../evil.js", BUILD + "..\\evil.js", _link()])
def test_names_that_lead_out_are_refused(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with a file that would land elsewhere, or with a link, leaves nothing behind."""
    wheel = make_wheel(tmp_path, monkeypatch, {**CONTENT, name: b"x"})
    with pytest.raises(UiInstallError, match="must not be unpacked"):
        install_ui(tmp_path / "ui", wheel)
    assert list((tmp_path / "ui").iterdir()) == []


def test_half_an_installation_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody left in the folder without a first page is put right."""
    (tmp_path / "ui" / "3.18.0").mkdir(parents=True)
    assert install_ui(tmp_path / "ui", make_wheel(tmp_path, monkeypatch))
    assert UiFiles(tmp_path / "ui").find("index.html") is not None


# --- serving ---


async def _serve(settings: Settings) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = await build(settings, replays=False)
    transport = httpx.ASGITransport(app=server.door)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield server, client
    await server.stop()


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has no UI files yet."""
    async for _, client in _serve(Settings(data_dir=tmp_path)):
        yield client


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI's files where the server looks for them."""
    install_ui(tmp_path / "ui", make_wheel(tmp_path, monkeypatch))


@pytest.mark.asyncio
async def test_page_says_how_to_get_the_files_until_they_are_there(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are put there while the server runs are served without a restart."""
    assert "mlproxy ui install" in (await client.get("/")).text
    install_ui(tmp_path / "ui", make_wheel(tmp_path, monkeypatch))
    answer = await client.get("/")
    assert answer.content == CONTENT[BUILD + "index.html"]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
async def test_page_runs_only_scripts_from_here(client: httpx.AsyncClient) -> None:
    """The policy lets in no foreign script, no inline script and no foreign frame around the page."""
    policy = (await client.get("/")).headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self' 'unsafe-eval';" in policy
    assert policy.endswith("frame-ancestors 'self'")


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
async def test_files_are_kept_by_the_browser(client: httpx.AsyncClient) -> None:
    """A file comes with its type, may be kept for long, and is not sent to who has it."""
    answer = await client.get("/static-files/static/js/main.js", headers={"Accept-Encoding": "identity"})
    assert answer.content == SCRIPT
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=2419200, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = await client.get(
        "/static-files/static/js/main.js",
        headers={"Accept-Encoding": "identity", "If-None-Match": answer.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [("gzip, br", True), ("br;q=1, gzip;q=0.5", True), ("gzip;q=0", False), ("br", False)],
)
async def test_scripts_are_compressed_for_who_takes_it(
    accepted: str, is_compressed: bool, client: httpx.AsyncClient
) -> None:
    """A large script is sent compressed exactly if the client takes that."""
    path = "/static-files/static/js/main.js"
    async with client.stream("GET", path, headers={"Accept-Encoding": accepted}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["vary"] == "Accept-Encoding"
    assert ("content-encoding" in answer.headers) is is_compressed
    assert (gzip.decompress(raw) if is_compressed else raw) == SCRIPT


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "name",
    [
        "absent.js",
        "",
        "static",
        "static/js/main.js.gz",
        "..%2fLICENSE.txt",
        "%2e%2e/LICENSE.txt",
        "static//js",
    ],
)
async def test_nothing_but_the_files_is_served(name: str, client: httpx.AsyncClient) -> None:
    """Names outside the table, however they are spelt, are refused."""
    answer = await client.get(f"/static-files/{name}")
    assert answer.status_code in (400, 404)
    assert "error_code" in answer.json()


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
async def test_prefix_without_its_slash_is_completed(tmp_path: Path) -> None:
    """The page's relative addresses work only below the prefix, so that a browser is sent there."""
    async for _, client in _serve(Settings(data_dir=tmp_path, path_prefix="/mlflow")):
        answer = await client.get("/mlflow")
        assert (answer.status_code, answer.headers["location"]) == (308, "/mlflow/")
        assert (await client.get("/mlflow/")).content == CONTENT[BUILD + "index.html"]
        assert (await client.get("/mlflow/static-files/static/js/main.js")).status_code == 200


@pytest.mark.asyncio
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("path", ["/", "/static-files/static/js/main.js", "/ajax-api/3.0/mlflow/server-info"])
async def test_ui_wants_a_key_where_the_server_does(path: str, tmp_path: Path) -> None:
    """With keys on, the UI is for who has one, and a browser is told to ask for it."""
    async for _, client in _serve(Settings(data_dir=tmp_path, auth="keys")):
        answer = await client.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")


# --- calls of the UI ---


@pytest.mark.asyncio
async def test_ui_is_told_what_there_is(client: httpx.AsyncClient) -> None:
    """The UI learns that there is a database behind, no gateway, no telemetry and nobody logged in."""
    info = (await client.get("/ajax-api/3.0/mlflow/server-info")).json()
    assert (info["store_type"], info["features_enabled"]["gateway"]) == ("SqlStore", False)
    assert info == (await client.get("/api/3.0/mlflow/server-info")).json()
    assert (await client.get("/ajax-api/3.0/mlflow/ui-telemetry")).json()["disable_ui_telemetry"] is True
    assert (await client.get("/ajax-api/2.0/mlflow/gateway-proxy")).json() == {"endpoints": []}
    for path in ("skills", "mcp-servers", "review-queues/list", "label-schemas/list"):
        assert (await client.get(f"/ajax-api/3.0/mlflow/{path}")).json() == {}
    for path in ("2.0/mlflow/users/current", "3.0/mlflow/assistant/config"):
        answer = await client.get(f"/ajax-api/{path}")
        assert (answer.status_code, answer.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


async def _post(client: httpx.AsyncClient, path: str, **body: object) -> Any:
    answer = await client.post(f"/api/2.0/mlflow/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _ask(client: httpx.AsyncClient, operation: str, name: str, variables: object) -> Any:
    body = {"operationName": operation, "query": f"query {operation} {{ }}", "variables": {name: variables}}
    answer = await client.post("/graphql", json=body)
    assert answer.status_code == 200, answer.text
    [content] = answer.json()["data"].values()
    return content


async def _run(client: httpx.AsyncClient) -> tuple[str, str]:
    """An experiment with one run that has something of everything; their ids."""
    experiment_id = (await _post(client, "experiments/create", name="digits"))["experiment_id"]
    run = (await _post(client, "runs/create", experiment_id=experiment_id, start_time=5, run_name="one"))[
        "run"
    ]
    run_id = run["info"]["run_id"]
    metrics = [
        {"key": "loss", "value": 0.5, "timestamp": 7, "step": 3},
        {"key": "never", "value": "NaN", "timestamp": 7, "step": 0},
    ]
    await _post(client, "runs/log-batch", run_id=run_id, metrics=metrics, params=[{"key": "a", "value": "b"}])
    dataset = {"name": "points", "digest": "abc", "source_type": "code", "source": "{}"}
    await _post(client, "runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset}])
    await _post(client, "registered-models/create", name="model")
    await _post(client, "model-versions/create", name="model", source=f"runs:/{run_id}/model", run_id=run_id)
    return experiment_id, run_id


@pytest.mark.asyncio
async def test_graphql_shows_an_experiment(client: httpx.AsyncClient) -> None:
    """The experiment comes with 64-bit numbers as strings; one that is absent is an error in the answer."""
    experiment_id, _ = await _run(client)
    found = await _ask(client, "MlflowGetExperimentQuery", "input", {"experimentId": experiment_id})
    assert found["experiment"]["name"] == "digits"
    assert found["experiment"]["lastUpdateTime"].isdigit()
    assert found["apiError"] is None
    absent = await _ask(client, "MlflowGetExperimentQuery", "input", {"experimentId": "99"})
    assert absent["experiment"] is None
    assert absent["apiError"]["code"] == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.asyncio
async def test_graphql_shows_a_run_and_what_belongs_to_it(client: httpx.AsyncClient) -> None:
    """The run comes with its data, inputs, experiment and model versions; NaN is null."""
    experiment_id, run_id = await _run(client)
    run = (await _ask(client, "GetRun", "data", {"runId": run_id}))["run"]
    assert (run["info"]["startTime"], run["info"]["endTime"], run["info"]["status"]) == ("5", None, "RUNNING")
    metrics = {metric["key"]: (metric["value"], metric["step"]) for metric in run["data"]["metrics"]}
    assert metrics == {"loss": (0.5, "3"), "never": (None, "0")}
    assert [(param["key"], param["value"]) for param in run["data"]["params"]] == [("a", "b")]
    assert run["inputs"]["datasetInputs"][0]["dataset"]["digest"] == "abc"
    assert run["experiment"]["experimentId"] == experiment_id
    assert [(version["name"], version["version"]) for version in run["modelVersions"]] == [("model", "1")]
    assert run["outputs"]["modelOutputs"] == []


@pytest.mark.asyncio
async def test_graphql_finds_runs(client: httpx.AsyncClient) -> None:
    """Runs are found by the same filters as over REST; a filter that cannot be read is an error."""
    experiment_id, run_id = await _run(client)
    wanted = {"experimentIds": [experiment_id], "filter": "metrics.loss < 1"}
    found = await _ask(client, "SearchRuns", "data", wanted)
    assert [run["info"]["runUuid"] for run in found["runs"]] == [run_id]
    failed = await _ask(client, "SearchRuns", "data", {"experimentIds": [experiment_id], "filter": "("})
    assert failed["runs"] == []
    assert failed["apiError"]["code"] == "INVALID_PARAMETER_VALUE"


@pytest.mark.asyncio
async def test_graphql_shows_a_metrics_history(client: httpx.AsyncClient) -> None:
    """The points of a metric in several runs come with their runs."""
    _, run_id = await _run(client)
    wanted = {"runIds": [run_id], "metricKey": "loss", "maxResults": 320}
    found = await _ask(client, "GetMetricHistoryBulkInterval", "data", wanted)
    [point] = found["metrics"]
    assert (point["runId"], point["timestamp"], point["step"]) == (run_id, "7", "3")
    assert math.isclose(point["value"], 0.5)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        {"operationName": "Anything", "query": "query Anything { test }"},
        {"query": "{ test }"},
        {"operationName": "GetRun", "variables": {"data": {"runId": ["a"]}}},
    ],
)
async def test_graphql_refuses_what_it_does_not_know(body: Any, client: httpx.AsyncClient) -> None:
    """An unknown operation, or one whose variables do not fit, is answered in GraphQL's own form."""
    answer = await client.post("/graphql", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"]
