"""The emulator as a real process, for every test of the project.

`EmulatorProcess.start` returns when the emulator answers. `restart` comes back on the same ports with
the same data, so that addresses handed out before stay good. Nothing here reads the emulator's files:
what a test learns, it learns over HTTP.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
WORKSPACE_PATH = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
    "/providers/Microsoft.MachineLearningServices/workspaces/emulator"
)
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 20.0

JsonObject = dict[str, Any]


class EmulatorError(Exception):
    """The emulator did not start, or its admin interface refused a request."""


class EmulatorProcess:
    """One running emulator. Use `start`; leave it with `stop`, `kill` or a `with` block."""

    def __init__(self, *, data_dir: Path, port: int, tls_port: int | None, options: list[str]) -> None:
        self.data_dir = data_dir
        self.port = port
        self.tls_port = tls_port
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=self.http_url, timeout=60.0, trust_env=False)

    @classmethod
    def start(
        cls,
        data_dir: Path | str,
        *,
        tls: bool = False,
        port: int | None = None,
        tls_port: int | None = None,
        token_seconds: float | None = None,
        blob_endpoint: str | None = None,
        artifact_page_size: int | None = None,
        search_lag_seconds: float | None = None,
        workspaces: tuple[str, ...] = (),
    ) -> Self:
        """Start on free loopback ports (or the ones given) and wait for the first answer."""
        data_dir = Path(data_dir)
        data_dir.mkdir(parents=True, exist_ok=True)
        values: dict[str, object | None] = {
            "--token-seconds": token_seconds,
            "--blob-endpoint": blob_endpoint,
            "--artifact-page-size": artifact_page_size,
            "--search-lag-seconds": search_lag_seconds,
        }
        options = [text for name, value in values.items() if value is not None for text in (name, str(value))]
        options += [text for name in workspaces for text in ("--workspace", name)]
        emulator = cls(
            data_dir=data_dir,
            port=port or free_port(),
            tls_port=tls_port or (free_port() if tls else None),
            options=options,
        )
        emulator._launch()
        return emulator

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def https_url(self) -> str:
        if self.tls_port is None:
            raise EmulatorError("started without tls=True")
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def tracking_uri(self) -> str:
        """The workspace's tracking URI on the plain port."""
        return f"azureml://127.0.0.1:{self.port}/mlflow/v1.0{WORKSPACE_PATH}"

    @property
    def tls_tracking_uri(self) -> str:
        """The same workspace on the TLS port, for clients that insist on https."""
        return f"azureml://{self.https_url.removeprefix('https://')}/mlflow/v1.0{WORKSPACE_PATH}"

    @property
    def ca_file(self) -> Path:
        return self.data_dir / "tls" / "ca.pem"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "emulator.log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise EmulatorError("not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def environment(self) -> dict[str, str]:
        """What azure-identity needs to get a token here: a managed identity."""
        return {"IDENTITY_ENDPOINT": f"{self.http_url}/msi/token", "IDENTITY_HEADER": "emulator"}

    def stop(self) -> None:
        """End it the polite way (SIGTERM) and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it the hard way (SIGKILL) and wait."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop if running, then start again on the same ports and data."""
        self.stop()
        self._launch()

    def token(self, resource: str = "https://management.azure.com") -> str:
        """A fresh bearer token."""
        answer = self._http.get(
            "/msi/token",
            params={"api-version": "2019-08-01", "resource": resource},
            headers={"X-IDENTITY-HEADER": "emulator"},
        )
        return str(self._checked(answer)["access_token"])

    def run(self, run_id: str) -> JsonObject:
        """Everything the workspace holds about one run."""
        return self._get(f"/emulator/runs/{run_id}")

    def runs(self) -> list[JsonObject]:
        return list(self._get("/emulator/runs")["runs"])

    def experiments(self) -> list[JsonObject]:
        return list(self._get("/emulator/experiments")["experiments"])

    def registered_models(self) -> list[JsonObject]:
        return list(self._get("/emulator/registered-models")["registered_models"])

    def calls(self, since: int = 0) -> list[JsonObject]:
        """Calls in the order they ended; `since` is the `seq` of the last one already seen."""
        return list(self._get("/emulator/calls", since=since)["calls"])

    def calls_summary(self) -> dict[str, int]:
        """Number of calls by method and path template."""
        return dict(self._get("/emulator/calls/summary")["counts"])

    def clear_calls(self) -> None:
        self._send("DELETE", "/emulator/calls")

    def add_fault(self, **fault: object) -> str:
        """Misbehave from now on; returns the fault's id."""
        return str(self._send("POST", "/emulator/faults", fault)["fault_id"])

    def faults(self) -> list[JsonObject]:
        return list(self._get("/emulator/faults")["faults"])

    def clear_faults(self) -> None:
        self._send("DELETE", "/emulator/faults")

    def revoke_tokens(self) -> None:
        """Every token issued so far is refused from now on."""
        self._send("POST", "/emulator/tokens/revoke", {})

    def settings(self, **changes: object) -> JsonObject:
        """Change settings; returns all of them."""
        return self._send("POST", "/emulator/settings", changes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        command = [sys.executable, "-m", "emulator", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), *self._options]
        if self.tls_port is not None:
            command += ["--tls-port", str(self.tls_port)]
        search_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env={**os.environ, "PYTHONPATH": search_path},
            )
        self._await_answer(self._process)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                self._http.get("/emulator/settings")
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        self._end(signal.SIGKILL)
        raise EmulatorError(f"did not start:\n{self.log_file.read_text()[-4000:]}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _get(self, path: str, **parameters: str | int) -> JsonObject:
        return self._checked(self._http.get(path, params=parameters))

    def _send(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        return self._checked(self._http.request(method, path, json=body))

    def _checked(self, answer: httpx.Response) -> JsonObject:
        if answer.is_error:
            raise EmulatorError(f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}")
        return dict(answer.json())
