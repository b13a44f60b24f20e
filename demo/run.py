"""Run the whole thing on this machine and compare both ends.

Starts a local workspace and the proxy, trains with stock MLflow in an environment that has no Azure
package, waits until all is delivered, then prints what the client logged beside what the workspace
holds. Exits 1 if anything differs; otherwise keeps the proxy running until Ctrl-C, or ends at once
with DEMO_EXIT=1. DEMO_FOLDER names the folder for data and logs (`build/demo`), DEMO_CLIENT_PYTHON
the interpreter that trains (`.venvs/demo-client/bin/python`).
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from demo.compare import ClientSide, JsonClient, ReadError, Row, WorkspaceSide, compare_runs, counted, table

ROOT = Path(__file__).resolve().parents[1]
UI_FOLDER = ROOT / "build" / "ui"  # not emptied: the next demo need not fetch it again
EXPERIMENT = "digits"
EXPECTED_RUNS = 4
WORKSPACE_PATH = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
    "/providers/Microsoft.MachineLearningServices/workspaces/emulator"
)
PREFERRED_PORT = 5000
START_SECONDS = 60.0
STOP_SECONDS = 20.0
DRAIN_SECONDS = 120
LOG_TAIL_LINES = 40
FOREIGN_SETTINGS = ("MLPROXY_", "MLFLOW_", "AZURE_", "AZUREML_", "IDENTITY_", "MSI_", "DATABRICKS_")


class DemoError(Exception):
    """A step failed; the message says which and why."""


class BusyError(Exception):
    """Another demo uses the folder."""


class Demo:
    """The steps of the demo, in the order in which `run` takes them."""

    def __init__(self, *, folder: Path, client_python: Path, stays: bool) -> None:
        self._folder = folder
        self._client_python = client_python
        self._stays = stays
        self._emulator_port = free_port()
        self._proxy_port = free_port(preferred=PREFERRED_PORT if stays else 0)
        self._emulator_url = f"http://127.0.0.1:{self._emulator_port}"
        self._proxy_url = f"http://127.0.0.1:{self._proxy_port}"
        self._environment = clean_environment() | {
            "MLPROXY_DATA_DIR": str(short(folder / "proxy")),
            "MLPROXY_UI_DIR": str(UI_FOLDER),
            "MLPROXY_HOST": "127.0.0.1",
            "MLPROXY_PORT": str(self._proxy_port),
            "MLPROXY_WORKSPACE": f"azureml://127.0.0.1:{self._emulator_port}/mlflow/v1.0{WORKSPACE_PATH}",
            "MLPROXY_CREDENTIAL": "managed-identity",
            "MLPROXY_AUTH": "keys",
            "IDENTITY_ENDPOINT": f"{self._emulator_url}/msi/token",
            "IDENTITY_HEADER": "emulator",
        }

    def run(self) -> bool:
        """Run every step; whether both ends hold the same."""
        self._check_client()
        if self._stays:
            self._install_ui()
        with ExitStack() as services:
            say("Starting the workspace emulator and the proxy")
            services.enter_context(self._emulator())
            services.enter_context(self._proxy())
            key = self._create_key()
            self._train(key)
            self._drain()
            equal = self._compare(key) and self._verify(key)
            if equal and self._stays:
                self._wait_for_interrupt(key)
        return equal

    def _check_client(self) -> None:
        say(f"Checking the client's environment ({self._client_python})")
        command = [str(self._client_python), "-m", "pip", "list", "--format=json"]
        packages = {each["name"].lower(): each["version"] for each in json.loads(self._output(command))}
        azure = sorted(name for name in packages if name.startswith(("azure", "msal", "msrest")))
        if azure:
            raise DemoError(f"the client must have no Azure package, it has {', '.join(azure)}")
        shown = ", ".join(f"{name} {packages[name]}" for name in ("mlflow", "scikit-learn", "matplotlib"))
        print(f"  {len(packages)} packages: {shown}, …; none of them azure-*", flush=True)

    def _install_ui(self) -> None:
        say("Fetching the stock MLflow UI (mlproxy ui install)")
        try:
            print(indented(self._mlproxy("ui", "install")), flush=True)
        except DemoError as error:
            print(f"  The demo goes on without the UI:\n{indented(str(error))}", flush=True)

    @contextmanager
    def _emulator(self) -> Iterator[None]:
        command = [
            sys.executable,
            "-m",
            "emulator",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._emulator_port),
        ]
        command += ["--data-dir", str(self._folder / "emulator")]
        with self._service("emulator", command, f"{self._emulator_url}/emulator/settings"):
            yield

    @contextmanager
    def _proxy(self) -> Iterator[None]:
        command = [sys.executable, "-m", "server", "serve"]
        with self._service("proxy", command, f"{self._proxy_url}/health"):
            yield

    @contextmanager
    def _service(self, name: str, command: list[str], answers_at: str) -> Iterator[None]:
        """A server in a session of its own, so that Ctrl-C reaches it only through us."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for_answer(name, process, answers_at)
            print(f"  {name}: process {process.pid}, {answers_at}", flush=True)
            yield
        finally:
            stop(process)

    def _create_key(self) -> str:
        return self._mlproxy("keys", "create", "demo").splitlines()[-1].strip()

    def _train(self, key: str) -> None:
        say("Training with stock MLflow through the proxy")
        environment = clean_environment() | {
            "MLFLOW_TRACKING_URI": self._proxy_url,
            "MLFLOW_TRACKING_TOKEN": key,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONUNBUFFERED": "1",
        }
        started = time.monotonic()
        training = subprocess.Popen(
            [str(self._client_python), str(ROOT / "demo" / "train.py")],
            env=environment,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with (self._folder / "training.log").open("w") as log:
                for line in training.stdout or ():
                    log.write(line)
                    print(f"  {line}", end="", flush=True)
            exit_code = training.wait()
        finally:
            stop(training)
        if exit_code != 0:
            raise DemoError(f"the training ended with exit code {exit_code}")
        print(f"  done in {time.monotonic() - started:.1f} s", flush=True)

    def _drain(self) -> None:
        say("Waiting until everything is delivered (mlproxy drain)")
        print(indented(self._mlproxy("drain", "--timeout", str(DRAIN_SECONDS))), flush=True)

    def _compare(self, key: str) -> bool:
        say("What the client logged, and what the workspace holds")
        client, workspace = ClientSide(self._proxy_client(key)), WorkspaceSide(JsonClient(self._emulator_url))
        runs = client.runs(EXPERIMENT)
        if len(runs) != EXPECTED_RUNS:
            raise DemoError(f"the training makes {EXPECTED_RUNS} runs, the proxy shows {len(runs)}")
        tables = {
            f"{content.name} {run_id}": compare_runs(
                content, workspace.run(self._upstream_run_id(key, run_id))
            )
            for run_id, content in runs.items()
        }
        tables["registered models"] = [
            counted(
                "versions",
                {f"{name} {version}": version for name, version in client.model_versions()},
                {f"{name} {version}": version for name, version in workspace.model_versions()},
            )
        ]
        print("\n\n".join(table(title, rows) for title, rows in tables.items()), flush=True)
        return self._summarise([row for rows in tables.values() for row in rows], len(runs))

    def _summarise(self, rows: list[Row], run_count: int) -> bool:
        differences = [difference for row in rows for difference in row.differences]
        print()
        print("\n".join(differences), end="\n" if differences else "")
        totals = ", ".join(
            f"{sum(int(row.client) for row in rows if row.what == what)} {what}"
            for what in ("metric points", "params", "tags", "files by hash", "versions")
        )
        outcome = f"DIFFERENT in {len(differences)} places" if differences else "EQUAL"
        print(f"{run_count} runs, {totals}: {outcome}", flush=True)
        return not differences

    def _verify(self, key: str) -> bool:
        say("Comparing again with the proxy's own command (mlproxy verify)")
        for run_id in ClientSide(self._proxy_client(key)).runs(EXPERIMENT):
            print(indented(self._mlproxy("verify", run_id)), flush=True)
        return True

    def _wait_for_interrupt(self, key: str) -> None:
        say("The proxy keeps running. Ctrl-C ends it.")
        print(f"  MLflow UI        {self._proxy_url}/   (any user, the API key as password)")
        print(f"  deliveries       {self._proxy_url}/sync")
        print(f"  API key          {key}")
        print(f"  the workspace    {self._emulator_url}/emulator")
        print(
            f"  use it           MLFLOW_TRACKING_URI={self._proxy_url} MLFLOW_TRACKING_TOKEN={key}",
            flush=True,
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("\nEnding.", flush=True)

    def _proxy_client(self, key: str) -> JsonClient:
        return JsonClient(self._proxy_url, {"Authorization": f"Bearer {key}"})

    def _upstream_run_id(self, key: str, run_id: str) -> str:
        found = self._proxy_client(key).get(f"/api/2.0/mlproxy/runs/{run_id}")
        return str(found["upstream_run_id"] or run_id)

    def _mlproxy(self, *arguments: str) -> str:
        return self._output([sys.executable, "-m", "server", *arguments])

    def _output(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            spoken = " ".join(Path(part).name if part == command[0] else part for part in command)
            raise DemoError(f"`{spoken}` ended with exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout


def main() -> int:
    """Read the variables, prepare the folder, run the demo."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    stays = os.environ.get("DEMO_EXIT", "") in ("", "0")
    folder = Path(os.environ.get("DEMO_FOLDER") or ROOT / "build" / "demo").absolute()
    default_python = ROOT / ".venvs" / "demo-client" / "bin" / "python"
    client_python = Path(os.environ.get("DEMO_CLIENT_PYTHON") or default_python).absolute()
    try:
        with emptied(folder):
            return run_in(Demo(folder=folder, client_python=client_python, stays=stays), folder)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BusyError as error:
        print(error, file=sys.stderr, flush=True)
        return 1


def run_in(demo: Demo, folder: Path) -> int:
    """Run the demo; if it fails, show the ends of its logs."""
    try:
        return 0 if demo.run() else 1
    except (DemoError, ReadError, OSError) as error:
        print_log_tails(folder)
        print(f"\nThe demo failed: {error}", file=sys.stderr, flush=True)
        return 1


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """The folder, empty and ours alone: another demo that uses it is not disturbed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"Another demo is running in {folder}; end it first.") from error
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield


def short(path: Path) -> Path:
    """The path as seen from the repository's root: a Unix socket's address has room for 100 characters."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def clean_environment() -> dict[str, str]:
    """This process's environment without settings of MLflow, Azure or the proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    return kept | {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def free_port(preferred: int = 0) -> int:
    """The preferred port if nothing listens there, else any free one."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


def wait_for_answer(name: str, process: subprocess.Popen[bytes], url: str) -> None:
    """Return as soon as the server answers; fail if it ends or takes too long."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"the {name} ended with exit code {process.returncode} before it answered")
        try:
            opener.open(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise DemoError(f"the {name} did not answer at {url} within {START_SECONDS:.0f} s")


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process if it still runs: politely, then not."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def print_log_tails(folder: Path) -> None:
    """The last lines of every log, for whoever has to find out why."""
    for log in sorted(folder.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        print(f"\n--- the end of {log}", *lines, sep="\n", file=sys.stderr)


def say(text: str) -> None:
    """A heading between the steps."""
    print(f"\n==> {text}", flush=True)


def indented(text: str) -> str:
    """A command's output, set off from ours."""
    return "\n".join(f"  {line}" for line in text.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
