"""Recognisable secrets go in at every door, through every way of failing, and come out nowhere.

The server runs against a workspace that refuses, fails, and repeats in its answers what it was told.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.emulator import EmulatorProcess
from tests.support.issuer import LocalIssuer
from tests.support.server import ServerProcess

PATIENCE_SECONDS = 240
MLFLOW = "/api/2.0/mlflow/"
OWN = "/api/2.0/mlproxy/"
DATABASE_PASSWORD = "canaryDatabasePassword7Zq"
AZURE_SECRET = "canaryAzureClientSecret~8Xw"
OIDC_SECRET = "canaryIssuerClientSecret9Yv"
WEBHOOK_SECRET = "canaryWebhookSecret5Tr"
SIGNATURE = "canarySignature4Gf%2Bab%3D"
ACCOUNT_KEY = "canaryAccountKey3Hj=="
BEARER = "canaryBearerToken2Kl.abc.def"
WRONG_KEY = "mlp_0123456789ab_canaryWrongKey1Mn"
COOKIE = "canarySessionCookie6Bp"
FIXED = [
    DATABASE_PASSWORD, AZURE_SECRET, OIDC_SECRET, WEBHOOK_SECRET, "canarySignature4Gf", "canaryAccountKey3Hj",
    "canaryBearerToken2Kl", "canaryWrongKey1Mn", COOKIE, "canaryClaim",
]  # fmt: skip
ECHO = (
    f"Authorization: Bearer {BEARER} was refused; https://a.blob.core.windows.net/c/b?sv=1&sig={SIGNATURE}&se=2;"
    f" DefaultEndpointsProtocol=https;AccountName=a;AccountKey={ACCOUNT_KEY};EndpointSuffix=core.windows.net;"
    f" client secret '{AZURE_SECRET}' is not valid; eyJhbGciOiJub25lIn0.canaryClaim.x"
)


@dataclass
class Scene:
    """A server in trouble, and all that it has said to anybody."""

    server: ServerProcess
    emulator: EmulatorProcess
    client: httpx.Client
    said: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=lambda: list(FIXED))

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, whose whole answer is kept."""
        answer = self.client.request(method, path, **options)
        self.said.append(f"{method} {path}\n{answer.headers}\n{answer.text}")
        return answer

    def run(self, *command: str, **env: object) -> None:
        """One command, whose output is kept."""
        done = self.server.cli(*command, **env)
        self.said.append(f"{command}\n{done.stdout}\n{done.stderr}")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Everything that has a secret is configured with one that can be recognised."""
    folder = tmp_path_factory.mktemp("canaries")
    with (
        LocalIssuer(client_secret=OIDC_SECRET) as issuer,
        EmulatorProcess.start(folder / "emulator") as emulator,
        ServerProcess.start(
            folder / "proxy",
            MLPROXY_WORKSPACE=emulator.tracking_uri,
            MLPROXY_AUTH="keys",
            MLPROXY_LOG_LEVEL="debug",
            MLPROXY_SETTLE_SECONDS="0",
            MLPROXY_OIDC_ISSUER=issuer.url,
            MLPROXY_OIDC_CLIENT_ID=issuer.client_id,
            MLPROXY_OIDC_CLIENT_SECRET=OIDC_SECRET,
            MLPROXY_PUBLIC_URL="http://localhost",
            AZURE_CLIENT_SECRET=AZURE_SECRET,
            **emulator.environment(),
        ) as server,
    ):
        key = server.cli("keys", "create", "canary", "--role", "admin").stdout.splitlines()[-1]
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
            scene = Scene(server, emulator, client)
            scene.secrets += [key.split("_", 2)[2], emulator.token()]
            yield scene


def _log(scene: Scene, name: str) -> str:
    """A run with a metric and a file that want to be delivered."""
    experiment = scene.ask(
        "POST", MLFLOW + "experiments/create", json={"name": f"{name} {uuid.uuid4().hex}"}
    ).json()
    run = scene.ask(
        "POST", MLFLOW + "runs/create", json={"experiment_id": experiment["experiment_id"]}
    ).json()["run"]
    run_id = str(run["info"]["run_id"])
    scene.ask(
        "POST", MLFLOW + "runs/log-metric", json={"run_id": run_id, "key": "a", "value": 1, "timestamp": 1}
    )
    place = run["info"]["artifact_uri"].removeprefix("mlflow-artifacts:")
    scene.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts{place}/a.bin", content=b"x" * 100_000)
    return run_id


def _credentials(scene: Scene) -> None:
    for value in (
        f"Bearer {BEARER}",
        f"Bearer {WRONG_KEY}",
        f"Basic {WRONG_KEY}",
        "Bearer eyJhbGciOiJub25lIn0.canaryClaim.x",
    ):
        scene.ask("GET", OWN + "status", headers={"Authorization": value})
    for cookie in (f"mlproxy_session={COOKIE}", f"mlproxy_login={COOKIE}.{COOKIE}"):
        headers = {"Authorization": "", "Cookie": cookie, "Accept": "text/html"}
        for path in ("/sync", "/login/callback?state=x&code=y", OWN + "status"):
            scene.ask("GET", path, headers=headers)
    scene.ask("POST", "/login", json={"key": WRONG_KEY})
    scene.ask(
        "POST", "/login", content=f'{{"key": "{WRONG_KEY}"', headers={"Content-Type": "application/json"}
    )


def _login(scene: Scene) -> None:
    with httpx.Client(base_url=scene.server.url, trust_env=False) as browser:
        key = scene.client.headers["authorization"].removeprefix("Bearer ")
        answer = browser.post("/login", json={"key": key})
        scene.secrets.append(answer.cookies["mlproxy_session"])
        scene.said.append(answer.text)
        for path in ("/sync", OWN + "status", "/nowhere"):
            scene.said.append(browser.get(path).text)


def _webhooks(scene: Scene) -> None:
    hook = {
        "name": "canary",
        "url": "https://example.invalid/x",
        "secret": WEBHOOK_SECRET,
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
    }
    made = scene.ask("POST", MLFLOW + "webhooks", json=hook).json()
    scene.ask("POST", MLFLOW + "webhooks", json={**hook, "url": "http://127.0.0.1/x"})
    scene.ask("POST", MLFLOW + "webhooks", json={**hook, "events": "wrong"})
    scene.ask("GET", MLFLOW + "webhooks")
    identity = made.get("webhook", {}).get("webhook_id", "x")
    scene.ask("PATCH", f"{MLFLOW}webhooks/{identity}", json={"secret": WEBHOOK_SECRET, "status": "WRONG"})
    scene.ask("POST", f"{MLFLOW}webhooks/{identity}/test", json={})


def _refusals(scene: Scene) -> None:
    """What the workspace refuses for good is shown with its words, without what is secret in them."""
    body = {"error_code": "INVALID_PARAMETER_VALUE", "message": ECHO}
    scene.emulator.add_fault(match="POST .*/runs/log-batch$", effect="status", status=400, body=body)
    _log(scene, "refused")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (parked := scene.ask("GET", OWN + "parked").json()["parked"]):
        assert time.monotonic() < deadline, "nothing was parked"
        time.sleep(0.2)
    assert "[redacted]" in json.dumps(parked), parked
    scene.ask("GET", f"{OWN}parked/{parked[0]['parked_id']}")
    scene.run("parked", "show", str(parked[0]["parked_id"]))
    scene.emulator.clear_faults()
    _look(scene)


def _troubles(scene: Scene) -> None:
    """The other ways in which the workspace can fail, each with an answer that tells secrets."""
    body = {"error": {"code": "Canary", "message": ECHO}}
    faults: list[dict[str, Any]] = [
        {"match": "POST", "effect": "status", "status": 200, "body": ECHO, "times": 1},
        {"match": ".", "effect": "html", "status": 502, "body": f"<html>{ECHO}</html>", "times": 1},
        {"match": ".", "effect": "status", "status": 500, "body": ECHO, "times": 1},
        {"match": ".", "effect": "status", "status": 403, "body": body, "times": 1},
        {"match": ".", "effect": "status", "status": 401, "body": body},
    ]
    for fault in faults:
        scene.emulator.add_fault(**fault)
    _log(scene, "trouble")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(fault["hits"] for fault in scene.emulator.faults()):
        assert time.monotonic() < deadline, scene.emulator.faults()
        time.sleep(0.2)
    _look(scene)
    scene.run("doctor")


def _look(scene: Scene) -> None:
    for path in ("status", "parked", "keys", "overview", "doctor", "webhooks"):
        scene.ask("GET", OWN + path)
    for path in ("/metrics", "/sync", "/health/ready", "/health/upstream", "/openapi.json", "/nowhere"):
        scene.ask("GET", path)


def _commands(scene: Scene) -> None:
    for command in (["status"], ["keys", "list"], ["backup", str(scene.server.data_dir / "canary.tar")]):
        scene.run(*command)


def _settings(scene: Scene) -> None:
    """A database that is away or is none, and settings that are wrong, in the words of every command."""
    urls = [
        f"postgresql+psycopg://mlproxy:{DATABASE_PASSWORD}@127.0.0.1:1/mlproxy",
        f"postgresql://mlproxy:{DATABASE_PASSWORD}@[::1/mlproxy",
        f"nonsense://mlproxy:{DATABASE_PASSWORD}@host/mlproxy",
        f"postgresql://mlproxy:{DATABASE_PASSWORD}@host:port/mlproxy",
    ]
    for number, url in enumerate(urls):
        folder = scene.server.data_dir.parent / f"other{number}"
        for command in ["serve"], *([["migrate"], ["doctor"]] if number == 0 else []):
            scene.run(*command, MLPROXY_DATABASE_URL=url, MLPROXY_DATA_DIR=folder, MLPROXY_PORT="0")
    for wrong in ({"MLPROXY_OIDC_DEFAULT_ROLE": OIDC_SECRET}, {"MLPROXY_NO": OIDC_SECRET}):
        scene.run("serve", **wrong)


STEPS: list[Callable[[Scene], None]] = [
    _credentials,
    _login,
    _webhooks,
    _refusals,
    _troubles,
    _commands,
    _settings,
]


@pytest.mark.parametrize("step", STEPS, ids=[step.__name__.strip("_") for step in STEPS])
def test_no_secret_is_told(
    scene: Scene, step: Callable[[Scene], None], record_property: Callable[[str, object], None]
) -> None:
    """Not in an answer, a header, a page, a metric, a command's output or the log, at its most talkative."""
    before = len(scene.said)
    step(scene)
    told = {"said": "\n".join(scene.said), "log": scene.server.log_file.read_text()}
    for where, text in told.items():
        for secret in scene.secrets:
            at = text.find(secret)
            assert at < 0, f"{where}: …{text[max(at - 300, 0) : at + 100]}…"
    record_property("attacks", len(scene.said) - before)


def test_control_the_secrets_were_there(scene: Scene) -> None:
    """The server did see them: the workspace got its token, and the debug log is on."""
    assert scene.emulator.calls_summary()
    assert scene.server.is_running
    assert Path(scene.server.log_file).stat().st_size > 1000
