"""What starts, accounts and fills servers does so truthfully."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.growth.store import settle
from benchmarks.limit.program import GroupCommit, SqliteTable
from benchmarks.load.plan import Plan
from benchmarks.load.run import run_load
from benchmarks.machine import describe, flush_times
from benchmarks.stages.delivery import status_of
from benchmarks.stages.reads import fill
from benchmarks.systems import accounting
from benchmarks.systems.kinds import SQLITE, Place, Proxy, Running
from benchmarks.systems.process import ServerProcess, StartError, free_port


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Running]:
    """A proxy with a key, on SQLite."""
    running = Proxy().start(Place(SQLITE, tmp_path))
    try:
        yield running
    finally:
        running.stop()


def test_a_load_on_the_proxy_is_in_the_proxy(proxy: Running) -> None:
    """What the generator counts is what the proxy then shows, and the proxy is used with its key."""
    (run_id,) = proxy.api.create_runs("an experiment", 1)
    workload = {"kind": "log-metric", "run_ids": [run_id], "keys": 1}
    plan = Plan(proxy.process.url, workload, connections=2, operations=25, headers=proxy.headers)

    result = run_load(plan)

    history = proxy.api.ask("GET", f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=m0")
    assert (result.operations, result.errors) == (25, 0)
    assert sorted(point["step"] for point in history["metrics"]) == list(range(25))
    assert run_load(Plan(proxy.process.url, workload, connections=1, operations=2)).errors == 2


def test_a_settled_store_has_its_content_and_no_backlog(proxy: Running) -> None:
    """Growth is measured on stores that are as delivery leaves them."""
    experiment_id = proxy.api.experiment("an experiment")
    content = {"metrics": 3, "params": 2, "tags": 1}
    fill(proxy, {"kind": "seed-run", "experiment_id": experiment_id, **content}, 5, connections=2)
    assert status_of(proxy.api)["pending"] > 0
    proxy.process.stop()

    settle(proxy.place)

    again = Proxy().start_again(proxy)
    try:
        assert status_of(again.api)["pending"] == 0
        found = again.api.ask("POST", "/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment_id]})
        serials = {param["value"] for run in found["runs"] for param in run["data"]["params"]}
        assert {str(number) for number in range(5)} <= serials
    finally:
        again.process.stop()


def test_a_server_that_ends_at_once_says_what_it_said(tmp_path: Path) -> None:
    """A peer that cannot start is told by its own words, not waited for."""
    command = [sys.executable, "-c", "raise SystemExit('no database here')"]
    process = ServerProcess(name="peer", command=command, folder=tmp_path, port=free_port())

    with pytest.raises(StartError, match="no database here"):
        process.start()


def test_accounting_sees_what_a_process_started() -> None:
    """Workers count: their processor time and their memory are the server's."""
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c',"
        " 'x = sum(range(10**7)); print(1, flush=True); input()'], stdin=0); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        parent.stdout.readline()  # the child has done its work
        memory = accounting.memory(parent.pid)
        assert memory.processes == 2
        assert memory.rss_mib >= memory.pss_mib > 5
        assert accounting.cpu_seconds(parent.pid) > 0.05
    finally:
        parent.communicate("\n\n", timeout=120)


def test_a_flush_takes_time_and_leaves_nothing(tmp_path: Path) -> None:
    """The probe really flushes, and removes its file."""
    times = flush_times(tmp_path, seconds=0.1)

    assert times["flushes"] > 0
    assert 0 < times["p50_ms"] <= times["p99_ms"]
    assert list(tmp_path.iterdir()) == []
    assert describe(tmp_path)["filesystem"] != "unknown"


def test_the_limit_program_answers_after_the_commit(tmp_path: Path) -> None:
    """What its answers promise is in the file, for another connection to see."""
    file = tmp_path / "points.db"

    async def put() -> None:
        commits = GroupCommit(SqliteTable(str(file)))
        rows = [[("run", "loss", step, 1, 0.5)] for step in range(50)]
        await asyncio.gather(*(commits.put(each) for each in rows))
        with sqlite3.connect(file) as other:
            assert other.execute("SELECT count(*), max(step) FROM points").fetchone() == (50, 49)
            assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    asyncio.run(put())
