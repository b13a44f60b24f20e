"""A running emulator, and Microsoft's clients beside it in environments of their own."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(REPOSITORY), str(Path(__file__).parent)) if path not in sys.path]

from api import Api  # noqa: E402
from tunnel import Tunnel  # noqa: E402

from tests.support.emulator import EmulatorProcess  # noqa: E402

CLIENTS = Path(__file__).parent / "clients"
CLIENT_TIMEOUT_SECONDS = 480

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """An emulator for the module."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator"), tls=True) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """One emulator per module; each test finds it well behaved and leaves it so."""
    before = running.settings()
    yield running
    running.clear_faults()
    running.settings(**before)


@pytest.fixture
def api(emulator: EmulatorProcess) -> Api:
    """Plain calls."""
    return Api(emulator)


@pytest.fixture
def experiment_id(api: Api) -> str:
    """A new experiment."""
    return api.experiment(f"experiment-{uuid.uuid4()}")


@pytest.fixture
def run_id(api: Api, experiment_id: str) -> str:
    """A new run."""
    return api.run(experiment_id)


@pytest.fixture
def tunnel(emulator: EmulatorProcess) -> Iterator[Tunnel]:
    """Brings the storage account's real address to the emulator."""
    assert emulator.tls_port is not None
    opened = Tunnel(emulator.tls_port)
    yield opened
    opened.close()


@pytest.fixture(params=["MLPROXY_TEST_AZUREML_MLFLOW_PYTHON", "MLPROXY_TEST_AZUREML_MLFLOW2_PYTHON"])
def azureml_mlflow(
    request: pytest.FixtureRequest, emulator: EmulatorProcess, tmp_path: Path
) -> Callable[..., Results]:
    """Runs a client script with azureml-mlflow: with the MLflow it brings, and with MLflow 2."""
    folder = "azureml-mlflow2" if "MLFLOW2" in request.param else "azureml-mlflow"
    python = find_python(request.param, folder)

    def run(script: str, **environment: str | None) -> Results:
        variables = {
            **emulator.environment(),
            "MLFLOW_TRACKING_URI": emulator.tls_tracking_uri,
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }
        return run_client(python, script, emulator, tmp_path, variables | environment)

    return run


@pytest.fixture
def azureml_core(emulator: EmulatorProcess, tunnel: Tunnel, tmp_path: Path) -> Callable[..., Results]:
    """Runs a client script with azureml-core, its cloud and storage account led to the emulator."""
    python = find_python("MLPROXY_TEST_AZUREML_CORE_PYTHON", "azureml-core")
    emulator.settings(blob_host_in_path=False)

    def run(script: str, **environment: str | None) -> Results:
        variables = {
            **emulator.environment(),
            "ARM_CLOUD_METADATA_URL": f"{emulator.https_url}/metadata/endpoints",
            "HTTPS_PROXY": tunnel.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "TEST_SUBSCRIPTION": "00000000-0000-0000-0000-000000000000",
            "TEST_GROUP": "emulator",
            "TEST_WORKSPACE": "emulator",
        }
        return run_client(python, script, emulator, tmp_path, variables | environment)

    return run


def find_python(variable: str, folder: str) -> str:
    """The interpreter that a variable names, else the one under `.venvs`, else the test is skipped."""
    named = os.environ.get(variable)
    if named:
        return named
    usual = REPOSITORY / ".venvs" / folder / "bin" / "python"
    if usual.exists():
        return str(usual)
    pytest.skip(f"no Microsoft client: {variable} is not set and {usual} does not exist")


def run_client(
    python: str, script: str, emulator: EmulatorProcess, home: Path, variables: dict[str, str | None]
) -> Results:
    """Run a script of `clients`; returns what it reports of its steps."""
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "AZURE", "PYTHON"))
        },
        "HOME": str(home),
        "REQUESTS_CA_BUNDLE": str(emulator.ca_file),
        "SSL_CERT_FILE": str(emulator.ca_file),
        **{name: value for name, value in variables.items() if value is not None},
    }
    for name in (name for name, value in variables.items() if value is None):
        environment.pop(name, None)
    done = subprocess.run(
        [python, str(CLIENTS / script)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_SECONDS,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 0, done.stderr[-4000:]
    results: Results = json.loads(lines[-1])
    return results
