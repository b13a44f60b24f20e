"""Restored files, told apart from what the workspace has by when that was written."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.backup.conftest import Site, drained
from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")

_HOUR = 3600.0
TurnClock = Callable[[float], None]


@pytest.fixture
def turn_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TurnClock:
    """Sets how far ahead the clock of the servers built from now on is, in seconds."""
    file = tmp_path / "clock"
    monkeypatch.setenv("MLPROXY_TEST_CLOCK", str(file))
    return lambda seconds: (file.write_text(f"0 {seconds}"), None)[1]


async def _put(server: Tracking, folder: str, name: str, content: bytes) -> None:
    answer = await server.http.put(f"/api/2.0/mlflow-artifacts/artifacts/{folder}/{name}", content=content)
    assert answer.status_code == 200, answer.text


async def _run(server: Tracking) -> tuple[str, str]:
    """A new run's id and its folder."""
    experiment_id = await server.experiment()
    run_id = await server.run(experiment_id=experiment_id)
    return run_id, f"{experiment_id}/{run_id}/artifacts"


def _stored(site: Site, run_id: str) -> dict[str, str]:
    return {item["path"]: item["sha256"] for item in site.emulator.run(run_id)["artifacts"]}


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_file_written_long_after_the_backup_stays(site: Site, turn_clock: TurnClock) -> None:
    """A newer file in the workspace is neither overwritten nor anybody's to decide."""
    turn_clock(-_HOUR)
    first, second = site.place(), site.place()
    async with site.server(first) as server:
        run_id, folder = await _run(server)
        assert await drained(server) == 0
        site.cut_off()
        await _put(server, folder, "last.ckpt", b"held")
        file = await site.back_up(first)
        site.emulator.clear_faults()
        await _put(server, folder, "last.ckpt", b"later")
        assert await drained(server) == 0
    turn_clock(0)
    site.restore(file, second)
    async with site.server(second) as server:
        assert await drained(server) == 0
    assert _stored(site, run_id) == {"last.ckpt": _sha(b"later")}


@pytest.mark.parametrize("site", ["sqlite"], indirect=True)
async def test_a_file_written_long_before_the_backup_is_replaced(site: Site, turn_clock: TurnClock) -> None:
    """What the backup holds is newer than what the workspace has, and arrives."""
    turn_clock(_HOUR)
    first, second = site.place(), site.place()
    async with site.server(first) as server:
        run_id, folder = await _run(server)
        await _put(server, folder, "last.ckpt", b"before")
        assert await drained(server) == 0
        site.cut_off()
        await _put(server, folder, "last.ckpt", b"held")
        file = await site.back_up(first)
    site.emulator.clear_faults()
    turn_clock(0)
    site.restore(file, second)
    async with site.server(second) as server:
        assert await drained(server) == 0
    assert _stored(site, run_id) == {"last.ckpt": _sha(b"held")}


async def test_a_file_that_never_came_shows_how_far_delivery_got(site: Site) -> None:
    """With the last restored file missing there, an earlier one cannot be older than what is there."""
    first, second = site.place(), site.place()
    async with site.server(first) as server:
        run_id, folder = await _run(server)
        await _put(server, folder, "last.ckpt", b"before")
        assert await drained(server) == 0
        site.cut_off()
        await _put(server, folder, "last.ckpt", b"held")
        await _put(server, folder, "metrics.csv", b"held too")
        file = await site.back_up(first)
    site.emulator.clear_faults()
    site.restore(file, second)
    async with site.server(second) as server:
        assert await drained(server) == 0
    assert _stored(site, run_id) == {"last.ckpt": _sha(b"held"), "metrics.csv": _sha(b"held too")}
