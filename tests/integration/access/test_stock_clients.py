"""A stock client and each kind of credential: let in and recorded, or refused with words that help."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, start_client
from tests.support.issuer import LocalIssuer
from tests.support.server import ServerProcess
from tests.support.workspace import run_of

_CLIENT_SECONDS = 480
_NEVER_RETRY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_ENABLE_ASYNC_LOGGING": "false"}
USER_TAG = "mlproxy.user"


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    """The identity provider."""
    with LocalIssuer() as running:
        yield running


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """The workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def server(
    issuer: LocalIssuer, emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A proxy that takes keys, and the issuer's tokens."""
    with ServerProcess.start(
        tmp_path_factory.mktemp("server"),
        MLPROXY_AUTH="keys",
        MLPROXY_OIDC_ISSUER=issuer.url,
        MLPROXY_OIDC_CLIENT_ID=issuer.client_id,
        MLPROXY_WORKSPACE=emulator.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        **emulator.environment(),
    ) as running:
        yield running


def make_key(server: ServerProcess, name: str, *options: str) -> str:
    """A new key."""
    made = server.cli("keys", "create", name, *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[-1]


def log_run(
    server: ServerProcess, folder: Path, experiment: str = "team-a/stock", **environment: str
) -> tuple[str, str]:
    """`run` and its id, or `refused` and what the client said."""
    process = start_client(
        client_python("mlflow3"),
        "credentialed.py",
        experiment,
        folder=folder,
        MLFLOW_TRACKING_URI=server.url,
        **_NEVER_RETRY,
        **environment,
    )
    try:
        code = process.wait(_CLIENT_SECONDS)
    finally:
        process.kill()
    said = (folder / "client.log").read_text()
    assert code in (0, 3), said
    word, _, rest = next(
        line for line in said.splitlines() if line.startswith(("run ", "refused "))
    ).partition(" ")
    return word, rest


def test_each_credential_logs_a_run_and_is_recorded(
    server: ServerProcess, issuer: LocalIssuer, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """A key as Bearer and as Basic password, and the issuer's token: who made the run is in the workspace."""
    key = make_key(server, "training")
    limited = make_key(server, "vision", "--experiments", "team-a/*", "--experiments", "other")
    ways = {
        "training": {"MLFLOW_TRACKING_TOKEN": key},
        "training basic": {"MLFLOW_TRACKING_USERNAME": "someone else", "MLFLOW_TRACKING_PASSWORD": key},
        "vision": {"MLFLOW_TRACKING_TOKEN": limited},
        "grace@example.org": {"MLFLOW_TRACKING_TOKEN": issuer.token(preferred_username="grace@example.org")},
    }
    made = {}
    for name, credential in ways.items():
        word, run_id = log_run(server, tmp_path / name, **credential)
        assert word == "run", run_id
        made[run_id] = name.removesuffix(" basic")
    drained = server.cli("drain", "--timeout", "240")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    tags = {run_id: run_of(emulator, run_id).tags for run_id in made}
    assert {run_id: item.get(USER_TAG) for run_id, item in tags.items()} == made
    assert {item.get("team") for item in tags.values()} == {"a"}


@pytest.mark.parametrize("kind", ["none", "unknown", "expired token", "foreign token", "reader", "outside"])
def test_what_is_not_enough_is_refused_with_words(
    server: ServerProcess, issuer: LocalIssuer, tmp_path: Path, kind: str
) -> None:
    """The client's own error shows the server's sentence."""
    credentials = {
        "none": ({}, "This server wants an API key: set MLFLOW_TRACKING_TOKEN"),
        "unknown": ({"MLFLOW_TRACKING_TOKEN": "mlp_0123456789ab_wrong"}, "not known here"),
        "expired token": ({"MLFLOW_TRACKING_TOKEN": issuer.token(lasts=-120)}, "not known here"),
        "foreign token": ({"MLFLOW_TRACKING_TOKEN": issuer.token(aud="somebody-else")}, "not known here"),
    }
    if kind in credentials:
        environment, sentence = credentials[kind]
    elif kind == "reader":
        environment = {"MLFLOW_TRACKING_TOKEN": make_key(server, "reader", "--role", "read")}
        sentence = "Your role here is 'read'; the call needs 'write'"
    else:
        environment = {"MLFLOW_TRACKING_TOKEN": make_key(server, "outside", "--experiments", "team-b/*")}
        sentence = "limited to experiments named 'team-b/*'"
    word, said = log_run(server, tmp_path / "client", "team-a/refused", **environment)
    assert word == "refused"
    assert sentence in said
