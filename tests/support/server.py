"""The proxy as a real process, for every test of the project.

`ServerProcess.start` returns when `/health` answers. `restart` comes back on the same port with the
same data folder, so that a client's tracking URI stays good. Settings of the surrounding shell
(`MLPROXY_*`) do not reach it: a server has exactly the settings that its test names.

It and its commands are forked from a process that has imported the program, which saves most of what a start
costs (`tests.support.nursery`); with `own_interpreter` they are started as `python -m server …`.
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

from tests.support.emulator import REPOSITORY
from tests.support.nursery import Nursery, NurseryChild, shared_nursery
from tests.support.ports import free_port

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 60.0
COMMAND_TIMEOUT_SECONDS = 240.0
_PREFIX = "MLPROXY_"

JsonObject = dict[str, Any]


class ServerError(Exception):
    """The server did not start, or did not end when it was told to."""


class ServerProcess:
    """One proxy. Use `start`; leave it with `stop`, `kill` or a `with` block."""

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int,
        settings: dict[str, str],
        nursery: Nursery | None = None,
        own_interpreter: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.port = port
        self.api_key: str | None = None
        self._settings = settings
        self._nursery = nursery
        self._own_interpreter = own_interpreter
        self._process: subprocess.Popen[bytes] | NurseryChild | None = None
        self._http = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    @classmethod
    def start(
        cls,
        data_dir: Path | str,
        *,
        port: int | None = None,
        nursery: Nursery | None = None,
        own_interpreter: bool = False,
        **env: object,
    ) -> Self:
        """Start on a free loopback port and wait until it answers.

        `env` are environment variables (`MLPROXY_WORKSPACE=…`, `IDENTITY_ENDPOINT=…`). It is forked from
        the `nursery`, or from the one that all tests share, unless it is to have an interpreter of its own.
        """
        server = cls.prepare(data_dir, port=port, nursery=nursery, own_interpreter=own_interpreter, **env)
        server.launch()
        return server

    @classmethod
    def prepare(
        cls,
        data_dir: Path | str,
        *,
        port: int | None = None,
        nursery: Nursery | None = None,
        own_interpreter: bool = False,
        **env: object,
    ) -> Self:
        """One that is not running: for its commands, or to `launch` later."""
        data_dir = Path(data_dir).absolute()
        data_dir.mkdir(parents=True, exist_ok=True)
        server = cls(
            data_dir=data_dir,
            port=port or free_port(),
            settings={},
            nursery=nursery,
            own_interpreter=own_interpreter,
        )
        server._change(env)
        return server

    @property
    def url(self) -> str:
        """What a client sets as MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def has_ended(self) -> bool:
        """Whether its end has been waited for, or it never ran."""
        return self._process is None

    @property
    def log_file(self) -> Path:
        """What it said on stdout and stderr, over all its lives."""
        return self.data_dir / "server.log"

    @property
    def admin_socket(self) -> Path:
        return self.data_dir / "admin.sock"

    def environment(self) -> dict[str, str]:
        """The environment of the server and of its commands."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        search_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        return {
            **inherited,
            "PYTHONPATH": search_path,
            "MLPROXY_DATA_DIR": str(self.data_dir),
            "MLPROXY_PORT": str(self.port),
            **self._settings,
        }

    def launch(self) -> None:
        """Start it and wait until `/health` answers."""
        self._process = self._start_process()
        self._await_health(self._process)

    def _start_process(self) -> "subprocess.Popen[bytes] | NurseryChild":
        nursery = self._forked_from()
        if nursery is not None:
            return nursery.start(["serve"], cwd=self.data_dir, env=self.environment(), log_file=self.log_file)
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "server", "serve"],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                env=self.environment(),
            )

    def stop(self) -> int:
        """End it the polite way (SIGTERM), wait, and give its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it the hard way (SIGKILL) and wait."""
        self._end(signal.SIGKILL)

    def restart(self, **env: object) -> None:
        """Stop if running, then start again on the same port and data; `env` changes its settings."""
        if self._process is not None:
            self.stop()
        self._change(env)
        self.launch()

    def send_signal(self, how: signal.Signals) -> None:
        """Send it a signal (SIGSTOP, SIGCONT) and do not wait."""
        self._running().send_signal(how)

    def wait(self, timeout: float = STOP_TIMEOUT_SECONDS) -> int:
        """Wait until it has ended by itself; its exit code."""
        process, self._process = self._running(), None
        return process.wait(timeout)

    def cli(
        self, *args: str, timeout: float = COMMAND_TIMEOUT_SECONDS, **env: object
    ) -> "subprocess.CompletedProcess[str]":
        """Run `mlproxy …` with the server's environment.

        Raises:
            subprocess.TimeoutExpired: it was not done in time, and was killed.
        """
        environment = {**self.environment(), **{name: str(value) for name, value in env.items()}}
        nursery = self._forked_from()
        if nursery is not None:
            return nursery.run(list(args), cwd=self.data_dir, env=environment, timeout=timeout)
        return subprocess.run(
            [sys.executable, "-m", "server", *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.data_dir,
            env=environment,
            check=False,
        )

    def status(self) -> JsonObject:
        """`GET /api/2.0/mlproxy/status`, with `api_key` where one is set."""
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        answer = self._http.get("/api/2.0/mlproxy/status", headers=headers)
        if answer.is_error:
            raise ServerError(f"{answer.status_code} {answer.text}")
        return dict(answer.json())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()
        self._http.close()

    def _change(self, env: dict[str, object]) -> None:
        for name, value in env.items():
            if value is None:
                self._settings.pop(name, None)
            else:
                self._settings[name] = str(value)

    def _forked_from(self) -> Nursery | None:
        return None if self._own_interpreter else self._nursery or shared_nursery()

    def _running(self) -> "subprocess.Popen[bytes] | NurseryChild":
        if self._process is None:
            raise ServerError("not running")
        return self._process

    def _await_health(self, process: "subprocess.Popen[bytes] | NurseryChild") -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                self._http.get("/health")
            except httpx.TransportError:
                time.sleep(0.05 if self._own_interpreter else 0.01)
            else:
                return
        code = self._end(signal.SIGKILL)
        raise ServerError(f"did not start (exit {code}):\n{self.log_file.read_text()[-4000:]}")

    def _end(self, how: signal.Signals) -> int:
        process, self._process = self._running(), None
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(f"did not end:\n{self.log_file.read_text()[-4000:]}") from None
