"""How large the store is and how long its disk will do, where an operator looks for it."""

from pathlib import Path

import httpx
import pytest

from tests.support.server import ServerProcess

HOUR_SECONDS = 3600
FILE_BYTES = 3 * 1024 * 1024
TOO_MUCH = 2**60


def turn(clock: Path, hours: float) -> None:
    """So many hours more have passed."""
    clock.write_text(str(hours * HOUR_SECONDS))


def keep_file(server: ServerProcess, name: str) -> None:
    """A file that waits for a workspace."""
    base = f"{server.url}/api/2.0"
    body = {"experiment_id": "0", "start_time": 1}
    run = httpx.post(f"{base}/mlflow/runs/create", json=body, trust_env=False).json()["run"]["info"]
    path = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    answer = httpx.put(
        f"{base}/mlflow-artifacts/artifacts/{path}/{name}", content=bytes(FILE_BYTES), trust_env=False
    )
    assert answer.is_success, answer.text


def test_the_growth_is_known_after_hours(database_url: str, tmp_path: Path) -> None:
    """Three files in two hours make a day on which the disk is full, in the status and among the figures."""
    clock = tmp_path / "clock"
    settings = {"MLPROXY_DATABASE_URL": database_url, "MLPROXY_TEST_CLOCK": str(clock)}
    with ServerProcess.start(tmp_path / "data", **settings) as server:
        at_start = server.status()["disk"]
        assert (at_start["growth_bytes_per_day"], at_start["days_until_full"]) == (None, None)
        for number in range(3):
            keep_file(server, f"{number}.bin")
        turn(clock, 2)
        grown = server.status()["disk"]
        assert grown["store_bytes"] == grown["database_bytes"] + grown["spool_bytes"]
        assert grown["spool_bytes"] == 3 * FILE_BYTES
        assert grown["growth_bytes_per_day"] >= 3 * FILE_BYTES * 11
        room = grown["free_bytes"] - grown["least_free_bytes"]
        assert grown["days_until_full"] == pytest.approx(room / grown["growth_bytes_per_day"])
        assert 0 < float(figure(server, "mlproxy_disk_days_until_full")) < float("inf")


def test_a_restart_does_not_forget_the_growth(tmp_path: Path) -> None:
    """The sizes are in the database; on Postgres, in the same table, but its clock cannot be turned here."""
    clock = tmp_path / "clock"
    with ServerProcess.start(tmp_path / "data", MLPROXY_TEST_CLOCK=str(clock)) as server:
        assert figure(server, "mlproxy_disk_days_until_full") == "+Inf"
        keep_file(server, "model.bin")
        turn(clock, 2)
        server.restart()
        # The write-ahead log went at the stop, and was part of the first size.
        assert server.status()["disk"]["growth_bytes_per_day"] > FILE_BYTES * 8
        assert "full in " in server.cli("status").stdout


def figure(server: ServerProcess, name: str) -> str:
    """A figure's value, as Prometheus gets it."""
    lines = httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))


def test_below_the_headroom_it_is_not_ready_and_says_what_is_wanted(tmp_path: Path) -> None:
    """The body names the setting; what is asked of it is still answered, and Azure has no part in it."""
    with ServerProcess.start(tmp_path, MLPROXY_MIN_FREE_BYTES=TOO_MUCH) as server:
        ready = httpx.get(f"{server.url}/health/ready", trust_env=False)
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert "MLPROXY_MIN_FREE_BYTES" in ready.json()["problems"]["disk"]
        assert httpx.get(f"{server.url}/health", trust_env=False).text == "OK"
        assert server.status()["disk"]["days_until_full"] == 0
        assert "FULL: /health/ready says no" in server.cli("status").stdout
        server.restart(MLPROXY_MIN_FREE_BYTES=None, MLPROXY_SPOOL_DIR=tmp_path / "elsewhere")
        assert httpx.get(f"{server.url}/health/ready", trust_env=False).json() == {
            "ready": True,
            "problems": {},
        }
