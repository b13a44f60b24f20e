"""Servers and commands that start in a fraction of a second and of the processor time.

A nursery is a process that has imported the program and waits. Each start is a fork of it that becomes
`mlproxy ARGUMENTS`: a process like any other, with memory, files and sockets of its own, that a real SIGKILL
ends. Only the second that the imports take is saved. When the nursery ends, its children are killed with it.

`python -m tests.support.nursery` is the nursery itself: it reads orders from stdin, one JSON object a line,
and answers each with one on stdout.
"""

import ctypes
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_REPOSITORY = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_FAILED_TO_START = 70
_END_TIMEOUT_SECONDS = 60.0
_IMPORTED_AHEAD = (
    "alembic.command",
    "azure.identity",
    "azure.storage.blob",
    "psycopg",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
    "server.__main__",
    "server.admin",
    "server.bootstrap",
    "server.in_process",
    "server.listening",
    "server.telemetry.logs",
)


class NurseryChild:
    """What a nursery has started; has what the tests use of `subprocess.Popen`."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (negative for a signal), or None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.poll(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; its exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["mlproxy"], timeout or 0)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, how: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, how)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that servers are forked from. Leave it with `close` or a `with` block."""

    def __init__(self, repository: Path = _REPOSITORY) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=repository,
            env={**os.environ, "PYTHONPATH": str(repository)},
            text=True,
        )
        self._lock = threading.Lock()
        self._ask({"order": "ready"})

    def start(self, arguments: list[str], *, cwd: Path, env: dict[str, str], log_file: Path) -> NurseryChild:
        """Start `mlproxy ARGUMENTS`; what it says goes to the end of `log_file`."""
        return self._start(arguments, cwd=cwd, env=env, stdout=log_file, stderr=log_file)

    def run(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run `mlproxy ARGUMENTS` to its end; its exit code and what it said.

        Raises:
            subprocess.TimeoutExpired: it was not done in time, and was killed.
        """
        with tempfile.TemporaryDirectory() as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            child = self._start(arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
            try:
                code = child.wait(timeout)
            finally:
                child.kill()
            return subprocess.CompletedProcess(
                ["mlproxy", *arguments], code, stdout.read_text("utf-8"), stderr.read_text("utf-8")
            )

    def _start(
        self, arguments: list[str], *, cwd: Path, env: dict[str, str], stdout: Path, stderr: Path
    ) -> NurseryChild:
        order = {
            "order": "start",
            "arguments": arguments,
            "cwd": str(cwd),
            "env": env,
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        return NurseryChild(self, self._ask(order))

    def poll(self, pid: int) -> int | None:
        """The exit code of a child, or None while it runs."""
        code = self._ask({"order": "poll", "pid": pid})
        return None if code is None else int(code)

    def close(self) -> None:
        """End it, and every server it started that still runs."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_END_TIMEOUT_SECONDS)

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the nursery has ended ({self._process.poll()})")
        return json.loads(answer)


@cache
def shared_nursery() -> Nursery:
    """The one for every test of this process, begun when it is first wanted. It ends with the process."""
    return Nursery()


# --- the nursery itself ---------------------------------------------------------------------


def _import_what_is_used() -> None:
    """Also what a server or a command imports only when it is used first: that costs as much."""
    for name in _IMPORTED_AHEAD:
        importlib.import_module(name)


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _become_mlproxy(order)
        except BaseException:
            traceback.print_exc()
        os._exit(_FAILED_TO_START)
    return pid


def _become_mlproxy(order: dict[str, Any]) -> NoReturn:
    from server.__main__ import main
    from server.domain import failpoints

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    random.seed()  # else servers would draw the same numbers as their siblings
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    sys.argv = ["mlproxy", *order["arguments"]]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _poll(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _serve_orders() -> None:
    _import_what_is_used()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        answer: object = None
        match order["order"]:
            case "start":
                answer = _start(order)
            case "poll":
                pid = order["pid"]
                if pid not in ended and (code := _poll(pid)) is not None:
                    ended[pid] = code
                answer = ended.get(pid)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve_orders()
