"""A server under measurement as a process of its own: started, waited for, accounted, ended."""

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.systems import accounting
from benchmarks.systems.accounting import Memory

START_SECONDS = 180.0
_STOP_SECONDS = 20.0
_ASK_SECONDS = 5.0
_BETWEEN_ASKS = 0.01
_BUSY_SHARE = 0.15
_LOG_TAIL_CHARACTERS = 2000
# Nor what keeps Python from keeping compiled files, which an installed server has.
_FOREIGN_SETTINGS = (
    "PYTHONDONTWRITEBYTECODE",
    "MLPROXY_",
    "MLFLOW_",
    "AZURE_",
    "AZUREML_",
    "IDENTITY_",
    "MSI_",
)


class StartError(Exception):
    """A server did not start."""


class ServerProcess:
    """One server on a loopback port. `start` it, and `stop` it whatever happens."""

    def __init__(
        self,
        *,
        name: str,
        command: Sequence[str],
        folder: Path,
        port: int,
        environment: Mapping[str, str] | None = None,
        health: str = "/health",
    ) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self._command = list(command)
        self._environment = dict(environment or {})
        self._health = health
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that was started; its workers are its descendants."""
        assert self._process is not None
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What it says."""
        return self.folder / f"{self.name}.log"

    def start(self) -> float:
        """Start it; the seconds until its first good answer.

        Raises:
            StartError: it ended, or gave none in time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                env=clean_environment() | self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await_answer(self._process, began + START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return time.perf_counter() - began

    def settle(self, most_seconds: float = 60.0) -> None:
        """Wait until its own work after the start is over: a second with little use of a processor."""
        deadline = time.monotonic() + most_seconds
        used = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self.cpu_seconds()
            if now - used < _BUSY_SHARE:
                return
            used = now

    def cpu_seconds(self) -> float:
        """Processor time so far, with its workers."""
        return accounting.cpu_seconds(self.pid)

    def memory(self) -> Memory:
        """Memory now, with its workers."""
        return accounting.memory(self.pid)

    def stop(self) -> None:
        """End it and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        tree = accounting.tree_of(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_orphans([pid for pid in tree if pid != process.pid], session=process.pid)

    def _await_answer(self, process: "subprocess.Popen[bytes]", deadline: float) -> None:
        while not self._answers():
            if process.poll() is not None or time.perf_counter() > deadline:
                raise StartError(f"{self.name} did not start: {self._log_tail()}")
            time.sleep(_BETWEEN_ASKS)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ASK_SECONDS)
        try:
            connection.request("GET", self._health)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _log_tail(self) -> str:
        return self.log_file.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:]


def clean_environment() -> dict[str, str]:
    """The surrounding environment without anything that would configure a server or a client."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_SETTINGS)}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end_orphans(pids: Sequence[int], session: int) -> None:
    """End workers that their parent left behind; only those that are still of its session."""
    for pid in pids:
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
