"""A full backlog: what is asked to come again, what is refused, and what is still taken in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.database.engine import Transaction
from server.journal import batches, leases
from tests.support.tracking import Json, Tracking, journal_of, refusal_of, tracking_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMIT = 1024 * 1024
SOFT = int(0.85 * LIMIT)
HARD = int(0.95 * LIMIT)
VALUE = "x" * 4000
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@pytest_asyncio.fixture(loop_scope="session")
async def server(database_url: str, tmp_path: Path) -> AsyncIterator[Tracking]:
    """A server with the smallest backlog that can be set, and nowhere to deliver to."""
    async with tracking_server(database_url, tmp_path, max_backlog_bytes=LIMIT) as made:
        yield made


async def backlog_bytes(server: Tracking) -> int:
    """What the backlog holds."""
    return int((await server.get("/api/2.0/mlproxy/status"))["pending_bytes"])


def tags_of(count: int) -> list[Json]:
    """Large tags."""
    return [{"key": f"t{number}", "value": VALUE} for number in range(count)]


async def fill(server: Tracking, run_id: str) -> None:
    """Log until the server does not take it any more."""
    body = {"run_id": run_id, "tags": tags_of(20)}
    while (answer := await server.send("POST", "runs/log-batch", body)).is_success:
        pass
    assert refusal_of(answer)[:2] == (429, "RESOURCE_EXHAUSTED")


async def end(server: Tracking, run_id: str) -> httpx.Response:
    """End a run."""
    return await server.send("POST", "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 1})


def settle_everything(transaction: Transaction) -> None:
    """Deliver all there is."""
    rows = transaction.rows(
        "SELECT lane_id, settled_position, last_position FROM lanes WHERE settled_position < last_position"
    )
    for lane_id, settled, last in rows:
        lease = leases.claim(transaction, lane_id, owner="test", lease_ms=0)
        assert lease is not None
        batch = batches.fix_batch(transaction, lease, settled + 1, last, lease_ms=0)
        batches.settle(transaction, lease, batch)


async def test_from_the_soft_limit_on_writes_are_told_to_come_again(server: Tracking) -> None:
    """429 with Retry-After for whatever would add to the backlog; nothing of it is kept, and reads go on."""
    experiment_id = await server.experiment()
    run_id = await server.run(experiment_id=experiment_id)
    root = f"{ARTIFACTS}/{experiment_id}/{run_id}/artifacts"
    await fill(server, run_id)
    held = await backlog_bytes(server)
    assert SOFT <= held < HARD
    refused: dict[str, Json] = {
        "runs/create": {"experiment_id": experiment_id, "start_time": 1},
        "runs/log-metric": {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1},
        "runs/set-tag": {"run_id": run_id, "key": "new", "value": "1"},
        "runs/update": {"run_id": run_id, "status": "RUNNING"},
        "runs/delete": {"run_id": run_id},
        "experiments/create": {"name": "one more"},
        "registered-models/create": {"name": "one more"},
    }
    for route, body in refused.items():
        answer = await server.send("POST", route, body)
        assert refusal_of(answer)[:2] == (429, "RESOURCE_EXHAUSTED"), route
        assert int(answer.headers["retry-after"]) >= 1
    for size in (10, 70_000):
        answer = await server.http.put(f"{root}/f", content=b"x" * size)
        assert refusal_of(answer)[0] == 429
    assert await backlog_bytes(server) == held
    _, _, tags = await server.data(run_id)
    assert "new" not in tags
    assert (await server.get("runs/get", run_id=run_id))["run"]["info"]["lifecycle_stage"] == "active"
    assert (await server.refusal("GET", "experiments/get-by-name", {"experiment_name": "one more"}))[0] == 404


async def test_what_adds_nothing_is_taken_in(server: Tracking) -> None:
    """Keys, repeated params and files that belong to no run are not the backlog's affair."""
    run_id = await server.run()
    await server.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    await fill(server, run_id)
    await server.post("/api/2.0/mlproxy/keys", name="k")
    await server.post("runs/log-inputs", run_id=run_id, models=[{"model_id": "m-1"}])
    assert (await server.http.put(f"{ARTIFACTS}/elsewhere/f", content=b"x")).status_code == 200
    assert (await server.http.get("/health/ready")).json()["problems"].get("database") is None


async def test_runs_can_be_ended_up_to_the_limit(server: Tracking) -> None:
    """The ends of runs use the reserve; when that is used up too, everything is refused with 507."""
    run_id = await server.run()
    await fill(server, run_id)
    assert (await end(server, run_id)).status_code == 200
    status = 0
    while status != 507:
        held = await backlog_bytes(server)
        answer = await server.send("POST", "runs/set-tag", {"run_id": run_id, "key": "k", "value": "1"})
        assert refusal_of(answer)[0] == (507 if held >= HARD else 429)
        status = answer.status_code
        for _ in range(100):
            assert (await end(server, run_id)).status_code == 200
    while (answer := await end(server, run_id)).is_success:
        pass
    assert refusal_of(answer)[:2] == (507, "RESOURCE_EXHAUSTED")
    assert LIMIT - 400 < await backlog_bytes(server) <= LIMIT
    assert (await server.data(run_id))[2]["t0"] == VALUE


async def test_a_write_that_can_never_fit_is_refused_at_once(server: Tracking) -> None:
    """An empty backlog would not help it."""
    run_id = await server.run()
    params = [{"key": f"p{number}", "value": "x" * 5500} for number in range(100)]
    tags = [{"key": f"t{number}", "value": "x" * 5500} for number in range(100)]
    body = {"run_id": run_id, "params": params, "tags": tags}
    assert (await server.refusal("POST", "runs/log-batch", body))[:2] == (507, "RESOURCE_EXHAUSTED")
    await server.post("runs/set-tag", run_id=run_id, key="k", value="1")


async def test_delivery_makes_room(server: Tracking) -> None:
    """What is delivered by whomever, here behind the server's back, is noticed within seconds."""
    run_id = await server.run()
    await fill(server, run_id)
    async with journal_of(server) as transaction:
        settle_everything(transaction)
    await until_taken_in(server, "runs/set-tag", run_id=run_id, key="k", value="1")


async def until_taken_in(server: Tracking, route: str, **body: Any) -> None:
    """Ask until it is taken in, for no longer than many measurements take."""
    deadline = asyncio.get_running_loop().time() + 60
    while (answer := await server.send("POST", route, body)).status_code == 429:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.2)
    assert answer.status_code == 200
