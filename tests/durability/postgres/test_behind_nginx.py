"""The nginx configuration that is shipped, in front of two real replicas, with a stock client.

Skipped where there is no nginx and need not be; `MLPROXY_TEST_NGINX` names one that is not on the path.
"""

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.durability.conftest import drain_all
from tests.durability.postgres.conftest import StartReplica
from tests.durability.tracking import Tracking, assert_delivered
from tests.support.emulator import REPOSITORY, EmulatorProcess
from tests.support.interpreters import client_python, start_client
from tests.support.ports import free_port
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, steps_by_key, wait_until

# Debian installs it where only root looks.
NGINX = os.environ.get("MLPROXY_TEST_NGINX") or shutil.which(
    "nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
)
MEBIBYTES = 200

pytestmark = pytest.mark.skipif(
    NGINX is None and os.environ.get("MLPROXY_TEST_REQUIRE_ALL") != "1", reason="no nginx"
)


@contextmanager
def load_balancer(folder: Path, replicas: list[ServerProcess]) -> Iterator[str]:
    """Run nginx with the shipped configuration, whose names and folders are changed to this machine's."""
    assert NGINX is not None, "no nginx"
    folder.mkdir()
    port = free_port()
    shipped = (REPOSITORY / "deploy" / "nginx" / "nginx.conf").read_text()
    text = shipped.replace("/tmp/", f"{folder}/").replace("listen 8080;", f"listen 127.0.0.1:{port};")
    for name, replica in zip(re.findall(r"server ([\w-]+:5000)", shipped), replicas, strict=True):
        text = text.replace(name, f"127.0.0.1:{replica.port}")
    (folder / "nginx.conf").write_text(text)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), within=120, what=(folder / "nginx.log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).text == "OK"
    except httpx.TransportError:
        return False


def requests_of(server: ServerProcess) -> int:
    """How many requests a replica has answered well."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    found = re.search(r'^mlproxy_request_seconds_count\{status="200"\} ([0-9.e+]+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


class _Restart(threading.Thread):
    """Stops a replica and starts it again."""

    def __init__(self, replica: ServerProcess) -> None:
        super().__init__(daemon=True)
        self._replica = replica
        self.exit_code: int | None = None

    def run(self) -> None:
        self.exit_code = self._replica.stop()
        self._replica.launch()
        # As long as nginx may take to believe in it again.
        time.sleep(6.5)


def test_a_training_with_a_large_file(
    start_replica: StartReplica, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """Metrics and 200 MiB go through nginx to two replicas, come back, and arrive in the workspace."""
    replicas = [start_replica(name, MLPROXY_TRUSTED_PROXIES="127.0.0.1") for name in ("one", "two")]
    with load_balancer(tmp_path / "nginx", replicas) as url:
        before = [requests_of(replica) for replica in replicas]
        report = tmp_path / "report"
        process = start_client(
            client_python("mlflow3"),
            "many_megabytes.py",
            str(MEBIBYTES),
            str(tmp_path),
            str(report),
            folder=tmp_path,
            MLFLOW_TRACKING_URI=url,
        )
        assert process.wait(240) == 0, (tmp_path / "client.log").read_text()
        served = [requests_of(replica) - old for replica, old in zip(replicas, before, strict=True)]
        assert min(served) > 15, served
        # Collected bodies would have been written here.
        buffered = [path for path in (tmp_path / "nginx").rglob("*") if path.is_file()]
        assert {path.name for path in buffered} <= {"nginx.conf", "nginx.log", "nginx.pid"}
        run_id, digest = report.read_text().split()
        drain_all(replicas[0])
    held = run_of(emulator, run_id)
    assert steps_by_key(held.points_in_order) == {"loss": list(range(60))}
    assert held.files == {"large.bin": digest}
    assert held.status == "FINISHED"


@pytest.mark.fault("17")
def test_replicas_are_replaced_one_after_the_other(
    start_replica: StartReplica, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    """A client logs while first one replica and then the other is stopped and started: no call fails."""
    settings = {"MLPROXY_STOP_DELAY_SECONDS": 3, "MLPROXY_TRUSTED_PROXIES": "127.0.0.1"}
    replicas = [start_replica(name, **settings) for name in ("one", "two")]
    with load_balancer(tmp_path / "nginx", replicas) as url:
        client = Tracking(url)
        run = client.create_run(client.create_experiment("rolling"), "rolling")
        step = 0
        for replica in replicas:
            restarting = _Restart(replica)
            restarting.start()
            while restarting.is_alive():
                client.log_metric(run, "loss", step / 8, step)
                step += 1
            restarting.join()
            assert restarting.exit_code == 0
        assert step > 20
        client.end(run)
        drain_all(replicas[0])
    assert_delivered(emulator, run)
