"""A stock MLflow server as a real process, on a database of its own."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.support.interpreters import client_python
from tests.support.ports import free_port

SERVER_INTERPRETER = "mlflow3"
START_TIMEOUT_SECONDS = 300.0
STOP_TIMEOUT_SECONDS = 10.0
_FOREIGN = ("MLPROXY_", "MLFLOW_", "AZURE_", "DATABRICKS_")
# Beside the API: job runners and usage reports, which no flow needs.
_QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


class StockServer:
    """One `mlflow server` with SQLite and proxied artifacts. `launch`, then `wait_until_ready`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What a client sets as MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self._port}"

    def launch(self) -> None:
        """Start it, and do not wait: it takes ten seconds and more."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            *(str(client_python(SERVER_INTERPRETER)), "-m", "mlflow", "server"),
            *("--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{self._folder}/stock.db"),
            *("--artifacts-destination", str(self._folder / "artifacts"), "--serve-artifacts"),
        ]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        inherited.pop("PYTHONPATH", None)
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**inherited, **_QUIET},
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Wait until `/health` answers."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with httpx.Client(trust_env=False) as http:
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    http.get(f"{self.url}/health").raise_for_status()
                except httpx.HTTPError:
                    time.sleep(0.1)
                else:
                    return
        raise AssertionError(f"the stock server did not start:\n{self._log_file.read_text()[-4000:]}")

    def stop(self) -> None:
        """End it with everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, how)
                process.wait(STOP_TIMEOUT_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait(STOP_TIMEOUT_SECONDS)

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _log_file(self) -> Path:
        return self._folder / "stock.log"
