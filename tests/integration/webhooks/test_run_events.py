"""Events about runs: this server's own, told from the same outbox as MLflow's."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.interpreters import client_python, run_client
from tests.support.receiver import Receiver
from tests.support.server import ServerProcess
from tests.support.webhooks import OURS, SECRET, Bench

EVENTS = ("run.created", "run.finished", "run.failed", "run.killed", "run.deleted", "run.restored")


async def make_run(bench: Bench, **fields: Any) -> str:
    """A new run's id."""
    return (await bench.call("POST", "runs/create", **fields))["run"]["info"]["run_id"]


async def update(bench: Bench, run_id: str, **fields: Any) -> None:
    """Change a run."""
    await bench.call("POST", "runs/update", run_id=run_id, **fields)


async def announced(bench: Bench) -> list[str]:
    """What waits in the outbox, in the order it was put there."""
    rows = await bench.database.read(
        lambda transaction: transaction.rows("SELECT event FROM webhook_deliveries ORDER BY delivery_pk")
    )
    return [row[0] for row in rows]


@pytest.mark.asyncio
async def test_life_of_a_run(bench: Bench) -> None:
    """Each thing that happens to a run arrives once, signed, with the run as it was then."""
    await bench.listen("/runs", *EVENTS, api=OURS, secret=SECRET)
    async with bench.sending():
        run_id = await make_run(bench, run_name="one", user_id="ann", start_time=1000)
        await update(bench, run_id, status="FINISHED", end_time=2000)
        await update(bench, run_id, status="FAILED", run_name="two")
        await update(bench, run_id, status="KILLED")
        await bench.call("POST", "runs/delete", run_id=run_id)
        await bench.call("POST", "runs/restore", run_id=run_id)
        received = await bench.wait_for(len(EVENTS))
        await bench.wait_until_empty()
    run = {"run_id": run_id, "experiment_id": "0", "user_id": "ann", "start_time": 1000}
    ended = {**run, "end_time": 2000, "run_name": "two", "status": "KILLED"}
    assert {request.event: request.message["data"] for request in received} == {
        "run.created": {**run, "run_name": "one", "status": "RUNNING", "end_time": None},
        "run.finished": {**ended, "run_name": "one", "status": "FINISHED"},
        "run.failed": {**ended, "status": "FAILED"},
        "run.killed": ended,
        "run.deleted": ended,
        "run.restored": ended,
    }
    assert all(request.is_signed_with(SECRET) for request in received)
    assert len({request.delivery_id for request in received}) == len(EVENTS)


@pytest.mark.asyncio
async def test_only_what_happened(bench: Bench) -> None:
    """What changes nothing, or is refused, is not told; a run that is resumed ends anew."""
    run_id = await make_run(bench)
    await bench.listen("/runs", *EVENTS, api=OURS)
    await update(bench, run_id, run_name="renamed")
    await update(bench, run_id, status="SCHEDULED")
    await update(bench, run_id, status="FINISHED")
    await update(bench, run_id, status="FINISHED", end_time=5)
    await update(bench, run_id, status="RUNNING")
    await update(bench, run_id, status="FINISHED")
    await bench.call("POST", "runs/delete", run_id=run_id)
    await bench.call("POST", "runs/delete", run_id=run_id)
    await bench.call("POST", "runs/update", run_id=run_id, status="FAILED", fails="INVALID_PARAMETER_VALUE")
    await bench.call("POST", "runs/create", experiment_id="77", fails="RESOURCE_DOES_NOT_EXIST")
    assert await announced(bench) == ["run.finished", "run.finished", "run.deleted"]


@pytest.mark.asyncio
async def test_only_to_those_who_asked(bench: Bench) -> None:
    """Each webhook hears of what it is told about; without a listener nothing is put aside."""
    await update(bench, await make_run(bench), status="FINISHED")
    await bench.listen("/models", "registered_model.created")
    await bench.listen("/off", *EVENTS, api=OURS, status="DISABLED")
    await update(bench, await make_run(bench), status="FINISHED")
    assert await announced(bench) == []
    await bench.listen("/failed", "run.failed", api=OURS)
    await bench.listen("/both", "run.failed", "run.created", api=OURS)
    await update(bench, await make_run(bench), status="FINISHED")
    await update(bench, await make_run(bench), status="FAILED")
    assert await announced(bench) == ["run.created", "run.created", "run.failed", "run.failed"]


@pytest.mark.asyncio
async def test_two_vocabularies(bench: Bench) -> None:
    """MLflow's routes show, change and delete only what MLflow has a word for."""
    runs = await bench.listen("/runs", "run.failed", api=OURS)
    both = await bench.listen("/both", "run.failed", "prompt.created", api=OURS)
    failed = {"entity": "RUN", "action": "FAILED"}
    prompt, model = ({"entity": name, "action": "CREATED"} for name in ("PROMPT", "REGISTERED_MODEL"))
    assert both["events"] == [failed, prompt]
    assert [hook["events"] for hook in (await bench.call("GET", "webhooks"))["webhooks"]] == [[prompt]]
    ours = (await bench.call("GET", "webhooks", api=OURS))["webhooks"]
    assert {hook["webhook_id"] for hook in ours} == {runs["webhook_id"], both["webhook_id"]}

    hidden = f"webhooks/{runs['webhook_id']}"
    for method, path in (("GET", hidden), ("PATCH", hidden), ("DELETE", hidden), ("POST", f"{hidden}/test")):
        await bench.call(method, path, fails="RESOURCE_DOES_NOT_EXIST")
    shared = f"webhooks/{both['webhook_id']}"
    changed = (await bench.call("PATCH", shared, events=[model]))["webhook"]
    assert changed["events"] == [model]
    assert (await bench.call("GET", shared, api=OURS))["webhook"]["events"] == [model, failed]
    for path in (shared, "webhooks"):
        method = "POST" if path == "webhooks" else "PATCH"
        url = f"{bench.receiver.url}/x"
        await bench.call(method, path, name="n", url=url, events=[failed], fails="INVALID_PARAMETER_VALUE")
    assert (await bench.call("POST", f"{hidden}/test", api=OURS))["result"]["success"]
    assert bench.receiver.received[0].message["data"]["status"] == "FAILED"
    assert await bench.call("DELETE", hidden, api=OURS) == {}


def test_beside_a_stock_client(database_url: str, receiver: Receiver, tmp_path: Path) -> None:
    """MLflow's own client lists and changes webhooks that are told about runs too, and its runs are told."""
    python = client_python("mlflow3")
    environment = {
        "MLPROXY_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{receiver.port}",
        "MLPROXY_DATABASE_URL": database_url if database_url.startswith("postgres") else None,
    }
    with (
        ServerProcess.start(tmp_path / "data", **environment) as server,
        httpx.Client(base_url=f"{server.url}/api/2.0/mlproxy", trust_env=False) as http,
    ):
        for name, events in (("runs", EVENTS), ("both", (*EVENTS, "registered_model.created"))):
            parts = [event.upper().split(".") for event in events]
            shown = [{"entity": entity, "action": action} for entity, action in parts]
            answer = http.post(
                "/webhooks", json={"name": name, "url": f"{receiver.url}/{name}", "events": shown}
            )
            assert answer.status_code == 200, answer.text
        run_client(python, "run_events.py", server.url, folder=tmp_path / "client")
        for path in ("/runs", "/both"):
            received = receiver.wait_for_events(set(EVENTS), path)
            assert {"run.killed", "run.restored"} <= {request.event for request in received}
        assert len(http.get("/webhooks").json()["webhooks"]) == 2
