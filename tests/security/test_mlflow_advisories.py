"""One test for each advisory about MLflow, named after it: what broke there does not break here."""

import json
import re
import stat
import uuid
from pathlib import Path

import httpx
import pytest

from server.api.endpoints import Endpoint
from tests.support.raw_http import request_bytes, send_raw
from tests.support.receiver import Receiver
from tests.support.server import ServerProcess
from tests.support.tracking import tracking_server

MLFLOW = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


def _model(writer: httpx.Client) -> str:
    name = f"model-{uuid.uuid4().hex[:12]}"
    assert writer.post(MLFLOW + "registered-models/create", json={"name": name}).status_code == 200
    return name


def _version_status(writer: httpx.Client, source: str, **fields: str) -> int:
    """What becomes of a version with this source. Where it is taken, its files cannot be had from here."""
    name = _model(writer)
    made = writer.post(MLFLOW + "model-versions/create", json={"name": name, "source": source, **fields})
    for path in ("etc/passwd", "passwd", "MLmodel"):
        where = {"name": name, "version": "1", "path": path}
        got = writer.get("/model-versions/get-artifact", params=where)
        assert got.status_code in (400, 404, 501), got.text
    return made.status_code


@pytest.mark.parametrize(
    "source", ["/etc", "file:///etc", "file:/etc", "/", "etc", "FILE:///etc", "local:/etc/../x"]
)
def test_cve_2023_1177_source_outside_the_store(writer: httpx.Client, source: str) -> None:
    """A version's source does not lead into this machine's files."""
    assert _version_status(writer, source) == 400


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "//etc/passwd", "C:/Windows/win.ini", "C:\\Windows", "\\\\host\\share\\x"]
)
def test_cve_2023_1176_absolute_path(writer: httpx.Client, run_id: str, path: str) -> None:
    """No absolute path, of either system, is an artifact's."""
    answer = writer.get("/get-artifact", params={"run_id": run_id, "path": path})
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid path")


@pytest.mark.parametrize(
    "scheme", ["mlflow-artifacts", "runs", "models", "s3", "http", "https", "ftp", "dbfs", "gs", "abfss"]
)
def test_cve_2023_2356_relative_source(writer: httpx.Client, scheme: str) -> None:
    """Dot segments are looked for behind every scheme."""
    for path in ("/../../../etc", "//host/a/../../etc", "/a/%2e%2e/%2e%2e/etc"):
        assert _version_status(writer, f"{scheme}:{path}") == 400, path


@pytest.mark.parametrize(
    "path", ["\\..\\..\\etc\\passwd", "a\\..\\..\\x", "..\\x", "%5c..%5c..%5cetc", "a/..\\../x"]
)
def test_cve_2023_2780_backslashes(writer: httpx.Client, run_id: str, path: str) -> None:
    """Both separators count, whatever system this is."""
    assert writer.get("/get-artifact", params={"run_id": run_id, "path": path}).status_code == 400
    assert _version_status(writer, f"mlflow-artifacts:/{path}") == 400
    assert _version_status(writer, f"file:///tmp/{path}") == 400


@pytest.mark.parametrize("path", ["../../../../etc/passwd", "..", "./../x", "%2e%2e/x", "a/../../x"])
def test_cve_2023_30172_get_artifact(writer: httpx.Client, run_id: str, path: str) -> None:
    """Query parameters are paths too."""
    for name in ("run_uuid", "run_id"):
        assert writer.get("/get-artifact", params={name: run_id, "path": path}).status_code == 400


FRAGMENTS = [
    "#/../../../etc",
    "a#/../../etc",
    "%23/../../etc",
    "a%2523/../../etc",
    "?/../../etc",
    "a%3f/../../etc",
]


@pytest.mark.parametrize("path", FRAGMENTS)
def test_cve_2023_6909_fragment_in_a_source(writer: httpx.Client, run_id: str, path: str) -> None:
    """What follows `#` or `?` is judged like the rest."""
    assert _version_status(writer, f"http://127.0.0.1/{path}") == 400
    assert writer.get("/get-artifact", params={"run_id": run_id, "path": path}).status_code == 400


@pytest.mark.parametrize("path", FRAGMENTS)
def test_cve_2024_1483_fragment_in_an_artifact_location(writer: httpx.Client, path: str) -> None:
    """An experiment's location cannot smuggle a path past the check, and leads to no file here."""
    name = f"location {uuid.uuid4().hex}"
    made = writer.post(
        MLFLOW + "experiments/create", json={"name": name, "artifact_location": f"http:///{path}"}
    )
    if made.status_code == 400:
        return
    run = writer.post(MLFLOW + "runs/create", json={"experiment_id": made.json()["experiment_id"]}).json()[
        "run"
    ]
    got = writer.get("/get-artifact", params={"run_id": run["info"]["run_id"], "path": "passwd"})
    assert got.status_code in (400, 404, 501), got.text


@pytest.mark.parametrize("path", FRAGMENTS)
def test_cve_2024_3848_fragment_in_a_location_of_ours(writer: httpx.Client, path: str) -> None:
    """The same, under our own scheme."""
    name = f"location {uuid.uuid4().hex}"
    made = writer.post(
        MLFLOW + "experiments/create",
        json={"name": name, "artifact_location": f"mlflow-artifacts:/{path}"},
    )
    if made.status_code == 400:
        return
    run = writer.post(MLFLOW + "runs/create", json={"experiment_id": made.json()["experiment_id"]}).json()[
        "run"
    ]
    listed = writer.get(MLFLOW + "artifacts/list", params={"run_id": run["info"]["run_id"]})
    assert listed.status_code in (200, 400), listed.text
    assert not listed.json().get("files")


DOUBLE = ["%252e%252e/%252e%252e", "%25252e%25252e/x", "a/%252e%252e%252fb", "%252fetc", "..%252f..%252fx"]


@pytest.mark.parametrize("path", DOUBLE)
def test_cve_2023_6831_double_decoding(server: ServerProcess, keys: dict[str, str], path: str) -> None:
    """A path is decoded once; one that would climb if it were decoded again deletes nothing."""
    line = f"Authorization: Bearer {keys['write']}"
    answer = send_raw(server.port, request_bytes(ARTIFACTS + path, line, method="DELETE"))
    assert (answer.status, json.loads(answer.body)["message"]) == (400, "Invalid path")


@pytest.mark.parametrize("path", [path for path in DOUBLE if not path.startswith("%252f")])
def test_cve_2024_1560_double_decoding_again(server: ServerProcess, keys: dict[str, str], path: str) -> None:
    """Nor through the longer way, below a run's folder, by any method."""
    line = f"Authorization: Bearer {keys['write']}"
    for method in ("DELETE", "PUT", "GET"):
        target = f"{ARTIFACTS}0/abc/artifacts/{path}"
        answer = send_raw(server.port, request_bytes(target, line, method=method))
        assert answer.status == 400, answer


def test_cve_2023_6977_local_file_inclusion(server: ServerProcess, writer: httpx.Client, run_id: str) -> None:
    """Artifacts are rows of a table: a link in the data folder is no artifact."""
    link = server.data_dir / "spool" / "linked"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("/etc")
    for path in ("linked/passwd", "spool/linked/passwd", f"0/{run_id}/artifacts/linked/passwd"):
        assert writer.get(ARTIFACTS + path).status_code == 404
    link.unlink()


@pytest.mark.parametrize("kind", ["<script>alert(1)</script>", "text/html", "application/json<img src=x>"])
def test_cve_2023_6568_reflected_content_type(writer: httpx.Client, kind: str) -> None:
    """What is said about a wrong Content-Type is JSON, and does not repeat it."""
    answer = writer.post(MLFLOW + "runs/create", content=b"{}", headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert kind not in answer.text


def test_cve_2024_4263_edit_and_delete(server: ServerProcess, keys: dict[str, str], run_id: str) -> None:
    """Each method has its own permission: who may read an artifact may not delete or replace it."""
    path = f"{ARTIFACTS}0/{run_id}/artifacts/model/MLmodel"
    headers = {"Authorization": f"Bearer {keys['read']}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as reader:
        assert reader.delete(path).status_code == 403
        assert reader.put(path, content=b"y").status_code == 403
        assert reader.get(path).content == b"x"


def test_cve_2022_0736_insecure_temporary_files(
    server: ServerProcess, writer: httpx.Client, run_id: str
) -> None:
    """Uploads lie in a folder that nobody else can write to, under names that nobody can guess."""
    path = f"{ARTIFACTS}0/{run_id}/artifacts/large.bin"
    assert writer.put(path, content=b"z" * 200_000).status_code == 200
    spool = server.data_dir / "spool"
    files = [file for file in spool.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert re.search(r"[0-9a-f]{16,}", file.name), file
        assert not stat.S_IMODE(file.stat().st_mode) & 0o022
    assert not stat.S_IMODE(spool.stat().st_mode) & 0o022


def test_cve_2025_0453_graphql_batches(writer: httpx.Client) -> None:
    """A thousand aliases are one query, known by its name, or none."""
    aliases = " ".join(
        f"a{n}: mlflowSearchRuns(input: {{}}) {{ runs {{ info {{ runId }} }} }}" for n in range(1000)
    )
    answer = writer.post("/graphql", json={"query": f"query X {{ {aliases} }}", "operationName": "X"})
    assert "a999" not in answer.text
    assert writer.post("/graphql", json=[{"query": "x"}] * 100).status_code == 400


@pytest.mark.parametrize(
    "path", ["/signup", "/api/2.0/mlflow/users/create", "/ajax-api/2.0/mlflow/users/create"]
)
def test_cve_2025_1473_signup_by_a_form(stranger: httpx.Client, path: str) -> None:
    """Nobody makes themselves an account, and no form of another site does."""
    form = {"username": "mallory", "password": "mallory mallory"}
    answer = stranger.post(path, data=form, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert stranger.post(path, data=form).status_code == 401


@pytest.mark.parametrize("password", ["", " ", "a", "password", "admin", "password1234"])
def test_cve_2025_1474_empty_passwords(stranger: httpx.Client, password: str) -> None:
    """There are no chosen passwords: an empty or well-known one opens nothing."""
    for user in ("", "admin", "read", "mlflow"):
        answer = stranger.get(MLFLOW + "experiments/search", auth=(user, password))
        assert answer.status_code == 401


def test_cve_2025_11200_weak_passwords(server: ServerProcess, keys: dict[str, str]) -> None:
    """Keys are made by the server, of 256 bits; a client cannot say what its key shall be."""
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    chosen = {
        "name": f"weak-{uuid.uuid4().hex[:6]}",
        "role": "read",
        "key": "1234",
        "secret": "1234",
        "password": "1234",
    }
    made = httpx.post(f"{server.url}/api/2.0/mlproxy/keys", json=chosen, headers=headers, trust_env=False)
    key = made.json()["key"]
    assert key != "1234"
    assert len(key.split("_", 2)[2]) >= 43


@pytest.mark.parametrize("host", ["evil.example", "rebind.evil.example:5000", "127.0.0.1.evil.example"])
def test_cve_2025_14279_dns_rebinding(server: ServerProcess, keys: dict[str, str], host: str) -> None:
    """A name that somebody made point here is not answered to, with or without access control."""
    target = MLFLOW + "experiments/search?max_results=1"
    sent = request_bytes(target, f"Authorization: Bearer {keys['admin']}", host=host)
    assert send_raw(server.port, sent).status == 403


@pytest.mark.asyncio
async def test_cve_2025_15381_routes_that_were_forgotten(tmp_path: Path) -> None:
    """Every route there is declares what it needs: traces and assessments too."""
    async with tracking_server(f"sqlite:///{tmp_path}/a.db", tmp_path, auth="keys") as tracking:
        about = [route for route in tracking.routes if "trace" in route.path or "assessment" in route.path]
        assert len(about) > 20
        for route in tracking.routes:
            assert isinstance(route, Endpoint)
        for route in about:
            method = next(iter(set(route.methods) - {"HEAD"}))
            path = re.sub(r"{\w+(:path)?}", "x", route.path)
            assert (await tracking.http.request(method, path)).status_code == 401, route.path


@pytest.mark.parametrize(
    "path", ["/ajax-api/3.0/jobs", "/ajax-api/3.0/jobs/", "/api/3.0/jobs", "/ajax-api/3.0/jobs/x"]
)
def test_cve_2026_0545_job_api(stranger: httpx.Client, writer: httpx.Client, path: str) -> None:
    """There is no way to make the server run something."""
    job = {"function_fullname": "os.system", "params": {"command": "id"}}
    assert stranger.post(path, json=job).status_code == 401
    assert writer.post(path, json=job).status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/v1/traces", "/metrics", "/sync", "/openapi.json", "/static-files/x", "/graphql", "/health/upstream",
     "/docs",
     "/redoc", "/gateway/x", "/ajax-api/2.0/mlflow/gateway-proxy", "/api/2.0/endpoints/"],
)  # fmt: skip
def test_cve_2026_2652_routes_outside_of_the_guard(stranger: httpx.Client, path: str) -> None:
    """The door is the outermost layer: what is beside the REST API is guarded as well."""
    for method in ("GET", "POST"):
        assert stranger.request(method, path).status_code == 401


@pytest.mark.parametrize("kind", ["create", "complete", "abort"])
def test_cve_2026_2651_multipart_uploads(
    server: ServerProcess, keys: dict[str, str], stranger: httpx.Client, kind: str
) -> None:
    """They ask for the permission to write, as the plain upload does."""
    path = f"/api/2.0/mlflow-artifacts/mpu/{kind}/0/abc/artifacts/model"
    body = {"path": "MLmodel", "num_parts": 1, "upload_id": "x", "parts": []}
    assert stranger.post(path, json=body).status_code == 401
    answer = stranger.post(path, json=body, headers={"Authorization": f"Bearer {keys['read']}"})
    assert answer.status_code == 403


def test_cve_2026_33866_ajax_is_guarded_alike(stranger: httpx.Client, writer: httpx.Client) -> None:
    """Under `/ajax-api` a route wants what it wants under `/api`, downloads of model files included."""
    paths = writer.get("/openapi.json").json()["paths"]
    twins = [
        path
        for path in paths
        if path.startswith("/ajax-api") and path.removeprefix("/ajax-api") and f"/api{path[9:]}" in paths
    ]
    assert len(twins) > 50
    for path in twins:
        for method, operation in paths[path].items():
            other = paths[f"/api{path[9:]}"].get(method)
            assert other is None or other["x-permission"] == operation["x-permission"], path
    assert (
        stranger.get("/ajax-api/2.0/mlflow/model-versions/get-artifact?name=a&version=1&path=b").status_code
        == 401
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/metadata/identity/oauth2/token",
        "https://127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
    ],
)
def test_cve_2026_2393_webhook_to_metadata(server: ServerProcess, keys: dict[str, str], url: str) -> None:
    """A webhook does not make the server ask the metadata service, which would hand out its identity."""
    with Receiver() as receiver:
        hook = {
            "name": f"hook-{uuid.uuid4().hex[:8]}",
            "url": url.format(port=receiver.port),
            "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
        }
        headers = {"Authorization": f"Bearer {keys['admin']}"}
        answer = httpx.post(f"{server.url}{MLFLOW}webhooks", json=hook, headers=headers, trust_env=False)
        assert answer.status_code == 400, answer.text
        assert receiver.received == []


@pytest.mark.parametrize(
    "tags", [[], [{"key": "mlflow.prompt.is_prompt", "value": "true"}]], ids=["model", "prompt"]
)
def test_cve_2026_2614_model_versions_again(
    stranger: httpx.Client, writer: httpx.Client, tags: list[dict[str, str]]
) -> None:
    """The exploit of 2023, without a credential, and under the disguise of a prompt."""
    body = {"name": "m", "source": "file:///etc", "tags": tags}
    assert stranger.post(MLFLOW + "model-versions/create", json=body).status_code == 401
    name = f"model-{uuid.uuid4().hex[:12]}"
    writer.post(MLFLOW + "registered-models/create", json={"name": name, "tags": tags})
    made = writer.post(
        MLFLOW + "model-versions/create", json={"name": name, "source": "file:///etc", "tags": tags}
    )
    assert made.status_code == 400, made.text
    got = writer.get("/model-versions/get-artifact", params={"name": name, "version": "1", "path": "passwd"})
    assert got.status_code in (400, 404), got.text
