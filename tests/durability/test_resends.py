"""The answer to a create gets lost, and the client asks again: one thing is made, here and upstream."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.crashing import KILLED, end_leases, is_stopped
from tests.durability.tracking import API, BASE_MS
from tests.support.answer_cutter import AnswerCutter
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client, start_client
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess
from tests.support.workspace import WorkspaceRun, runs_of, wait_until

pytestmark = pytest.mark.fault("15")

DEDUPED_TAG = "mlproxy.create_deduped"
TIMES = 2
RUNS, VERSIONS = r"POST .*/runs/create$", r"POST .*/model-versions/create$"
CREATES = {
    "mlflow2": {"run": RUNS, "note": r"POST .*/runs/log-model$", "model_version": VERSIONS},
    "mlflow3": {"run": RUNS, "logged_model": r"POST .*/logged-models$", "model_version": VERSIONS},
}
"""What each client makes that could be made twice."""

JsonObject = dict[str, Any]


@pytest.fixture
def cutter(server: ServerProcess) -> Iterator[AnswerCutter]:
    """A wire to the module's proxy on which answers get lost."""
    with AnswerCutter(server.port) as running:
        yield running


def client_settings(url: str) -> dict[str, str]:
    """The client's environment: it asks again soon."""
    return {"MLFLOW_TRACKING_URI": url, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


def train(client: str, name: str, url: str, folder: Path) -> None:
    """A whole small training with that client."""
    run_client(client_python(client), "resending.py", name, folder=folder, **client_settings(url))


def found(server: ServerProcess, path: str, key: str, body: JsonObject) -> list[JsonObject]:
    """Everything that a search finds."""
    answer = httpx.post(f"{server.url}{API}/{path}", json=body, trust_env=False)
    assert answer.is_success, answer.text
    return list(answer.json().get(key, []))


def experiment_id(server: ServerProcess, name: str) -> str:
    """The id of an experiment."""
    answer = httpx.get(
        f"{server.url}{API}/experiments/get-by-name", params={"experiment_name": name}, trust_env=False
    )
    return str(answer.json()["experiment"]["experiment_id"])


def counted(server: ServerProcess) -> dict[str, float]:
    """The hits that Prometheus is told of, by kind."""
    lines = httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines()
    prefix = 'mlproxy_resends_total{kind="'
    hits = (line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix))
    return {kind: float(number) for kind, number in hits}


def versions_of(server: ServerProcess, name: str) -> list[str]:
    """The versions of a registered model."""
    asked = {"filter": f"name = '{name}'"}
    answer = httpx.get(f"{server.url}{API}/model-versions/search", params=asked, trust_env=False)
    return [version["version"] for version in answer.json()["model_versions"]]


def workspace_versions(emulator: EmulatorProcess, name: str) -> int:
    """How many versions the workspace has of a registered model."""
    held = [model for model in emulator.registered_models() if model["name"].startswith(name)]
    return sum(len(model["versions"]) for model in held)


def only_run_of(emulator: EmulatorProcess, name: str) -> WorkspaceRun:
    """The one run that the workspace has in an experiment."""
    held = runs_of(emulator, name)
    assert len(held) == 1
    return held[0]


@pytest.mark.parametrize("client", ["mlflow2", "mlflow3"])
def test_a_stock_client_that_loses_every_create_makes_one_of_each(
    client: str, emulator: EmulatorProcess, server: ServerProcess, cutter: AnswerCutter, tmp_path: Path
) -> None:
    """It loses every answer twice, and ends with one run, one model in it, and one version of that."""
    name = f"{client}-loses"
    before = counted(server)
    for pattern in CREATES[client].values():
        cutter.lose(pattern, times=TIMES)
    train(client, name, cutter.url, tmp_path)
    assert len(cutter.lost) == TIMES * len(CREATES[client])
    own = experiment_id(server, name)
    [run] = found(server, "runs/search", "runs", {"experiment_ids": [own]})
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags[DEDUPED_TAG] == "true"
    # MLflow 2 notes the models of a run in a tag of it, MLflow 3 makes logged models.
    assert len(json.loads(tags.get("mlflow.log-model.history", "[]"))) == ("note" in CREATES[client])
    models = found(server, "logged-models/search", "models", {"experiment_ids": [own]})
    assert len(models) == ("logged_model" in CREATES[client])
    assert versions_of(server, name) == ["1"]
    hits = {kind: before.get(kind, 0) + TIMES for kind in CREATES[client] if kind != "note"}
    assert counted(server) == {**before, **hits}
    drain_all(server)
    held = only_run_of(emulator, name)
    assert held.tags[DEDUPED_TAG] == "true"
    assert (held.status, held.params, set(held.points.values())) == ("FINISHED", {"rate": "0.1"}, {1})
    assert "model/MLmodel" in held.files
    assert workspace_versions(emulator, name) == 1


@pytest.mark.parametrize(
    ("client", "kind", "creates"), [("mlflow2", "postgres", 4), ("mlflow3", "sqlite", 5)]
)
def test_creates_that_were_committed_and_never_answered_survive_the_crash(
    client: str,
    kind: str,
    creates: int,
    emulator: EmulatorProcess,
    nursery: Nursery,
    make_database: MakeDatabase,
    tmp_path: Path,
) -> None:
    """`kill -9` between the commit of each create and its answer: the next process answers, one of each."""
    name = f"{client}-survives"
    database_url = make_database(kind)
    deaths = 0
    with deliver_to(emulator, tmp_path / "server", nursery, MLPROXY_DATABASE_URL=database_url) as server:
        server.restart(MLPROXY_TEST_FAILPOINTS="create.committed=kill")
        training = start_client(
            client_python(client), "resending.py", name, folder=tmp_path, **client_settings(server.url)
        )
        while training.poll() is None:
            if not server.is_running:
                assert server.wait() == KILLED
                deaths += 1
                server.launch()
            time.sleep(0.02)
        assert training.returncode == 0, (tmp_path / "client.log").read_text()[-4000:]
        assert deaths == creates
        own = experiment_id(server, name)
        assert len(found(server, "runs/search", "runs", {"experiment_ids": [own]})) == 1
        models = found(server, "logged-models/search", "models", {"experiment_ids": [own]})
        assert len(models) == ("logged_model" in CREATES[client])
        assert versions_of(server, name) == ["1"]
        if kind == "postgres":
            end_leases(database_url)
        drain_all(server)
    assert only_run_of(emulator, name).status == "FINISHED"
    assert workspace_versions(emulator, name) == 1


# --- addresses, principals, connections -------------------------------------------------------


def body_of(**fields: object) -> bytes:
    """A create as a client sends it, byte for byte, again and again."""
    return json.dumps({"experiment_id": "0", "start_time": BASE_MS, **fields}).encode()


def create(url: str, body: bytes, **headers: str) -> str:
    """One create on a connection of its own, which ends with it; the run's id."""
    answer = httpx.post(
        f"{url}{API}/runs/create",
        content=body,
        headers={"content-type": "application/json", **headers},
        trust_env=False,
    )
    assert answer.is_success, answer.text
    return str(answer.json()["run"]["info"]["run_id"])


def test_the_address_is_that_of_the_client_behind_a_trusted_proxy(nursery: Nursery, tmp_path: Path) -> None:
    """`X-Forwarded-For` tells clients apart, link by link, when it comes from a proxy that is trusted."""
    with ServerProcess.start(
        tmp_path, nursery=nursery, MLPROXY_TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8"
    ) as server:
        body = body_of(run_name="behind a proxy")
        first = create(server.url, body, **{"x-forwarded-for": "192.0.2.1"})
        assert create(server.url, body, **{"x-forwarded-for": "192.0.2.1"}) == first
        assert create(server.url, body, **{"x-forwarded-for": "203.0.113.9, 192.0.2.1, 10.1.2.3"}) == first
        assert create(server.url, body, **{"x-forwarded-for": "192.0.2.2"}) != first
        assert create(server.url, body) != first


def test_what_anybody_may_write_is_not_believed(nursery: Nursery, tmp_path: Path) -> None:
    """Without a trusted proxy `X-Forwarded-For` is a client's own invention."""
    with ServerProcess.start(tmp_path, nursery=nursery) as server:
        body = body_of(run_name="alone")
        first = create(server.url, body)
        assert create(server.url, body, **{"x-forwarded-for": "192.0.2.1"}) == first


def test_another_key_is_another_client(nursery: Nursery, tmp_path: Path) -> None:
    """The same create under two API keys makes two runs; an `Idempotency-Key` is of one API key only."""
    with ServerProcess.start(tmp_path, nursery=nursery, MLPROXY_AUTH="keys") as server:
        ann, bob = (
            {
                "authorization": "Bearer "
                + server.cli("keys", "create", name, "--role", "write").stdout.split()[-1]
            }
            for name in ("ann", "bob")
        )
        body = body_of(run_name="shared")
        first = create(server.url, body, **ann)
        assert create(server.url, body, **bob) != first
        assert create(server.url, body, **ann) == first
        mine = {"idempotency-key": "mine"}
        assert create(server.url, body, **ann, **mine) != create(server.url, body, **bob, **mine)


def test_workers_that_start_in_one_millisecond_have_runs_of_their_own(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Equal creates whose clients are all still there, each on its connection, are not one asked twice."""
    with ServerProcess.start(tmp_path, nursery=nursery) as server:
        workers = [httpx.Client(base_url=server.url, trust_env=False) for _ in range(8)]
        body = body_of(run_name="launched together")
        headers = {"content-type": "application/json"}

        def start(worker: httpx.Client) -> str:
            answer = worker.post(f"{API}/runs/create", content=body, headers=headers)
            return str(answer.json()["run"]["info"]["run_id"])

        with ThreadPoolExecutor(len(workers)) as pool:
            ids = list(pool.map(start, workers))
        assert len(set(ids)) == len(workers)
        for worker in workers:
            worker.close()


def test_who_asks_anew_on_one_connection_has_read_the_answer(nursery: Nursery, tmp_path: Path) -> None:
    """One model registered twice, by one client in a row, has two versions; a logged model likewise is two.

    A run's create tells its time, so that an equal one is the same wherever it comes from.
    """
    with (
        ServerProcess.start(tmp_path, nursery=nursery) as server,
        httpx.Client(base_url=f"{server.url}{API}/", trust_env=False) as client,
    ):

        def post(path: str, **fields: object) -> JsonObject:
            answer = client.post(path, json=fields)
            assert answer.is_success, answer.text
            return dict(answer.json())

        post("registered-models/create", name="twice")
        versions = [post("model-versions/create", name="twice", source="s3://b/x") for _ in range(3)]
        assert [answer["model_version"]["version"] for answer in versions] == ["1", "2", "3"]
        models = [post("logged-models", experiment_id="0", name="twice") for _ in range(2)]
        assert len({answer["model"]["info"]["model_id"] for answer in models}) == 2
        runs = [post("runs/create", experiment_id="0", start_time=BASE_MS) for _ in range(2)]
        assert len({answer["run"]["info"]["run_id"] for answer in runs}) == 1


def post_and_hang_up(server: ServerProcess, script: Path, path: str, body: bytes) -> None:
    """Send a request and close the connection before it is committed.

    The server stands still meanwhile. Then it has time to notice before it would answer.
    """
    script.write_text("commit.before=stop; commit.after=sleep:0.5")
    request = (
        f"POST {API}/{path} HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as impatient:
        impatient.sendall(request + body)
        wait_until(lambda: is_stopped(server.pid), within=60, what="a commit that is held up")
    server.send_signal(signal.SIGCONT)


def test_a_client_that_gave_up_is_not_there_any_more(nursery: Nursery, tmp_path: Path) -> None:
    """A client that hangs up while its create still waits, and asks again on a new line, has one run."""
    script = tmp_path / "failpoints"
    with ServerProcess.start(
        tmp_path / "data", nursery=nursery, MLPROXY_TEST_FAILPOINTS=f"@{script}"
    ) as server:
        body = body_of(run_name="impatient")
        ids = set()
        for _ in range(3):
            post_and_hang_up(server, script, "runs/create", body)
            ids.add(create(server.url, body))
        assert len(ids) == 1
        assert len(found(server, "runs/search", "runs", {"experiment_ids": ["0"]})) == 1


@pytest.mark.parametrize("path", ["experiments/create", "registered-models/create"])
def test_a_unique_name_is_given_to_whom_it_could_not_be_told(
    path: str, nursery: Nursery, tmp_path: Path
) -> None:
    """Who hung up before the answer is told that it is made; who has been told is refused, on any line."""
    script = tmp_path / "failpoints"
    with ServerProcess.start(
        tmp_path / "data", nursery=nursery, MLPROXY_TEST_FAILPOINTS=f"@{script}"
    ) as server:
        body = json.dumps({"name": "mine"}).encode()
        post_and_hang_up(server, script, path, body)
        answers = [
            httpx.post(
                f"{server.url}{API}/{path}",
                content=body,
                headers={"content-type": "application/json"},
                trust_env=False,
            )
            for _ in range(3)
        ]
        assert [answer.status_code for answer in answers] == [200, 400, 400]
        assert answers[1].json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
