"""Thousands of single calls become few upstream calls, and no point is lost, doubled or out of order.

`MLPROXY_TEST_LARGE=1` logs the full 100,000 points; otherwise a fifth, under a bound as strict.
"""

import asyncio
import json
import os
from collections import Counter

from tests.durability.conftest import drain_all
from tests.durability.tracking import API, BASE_MS, Tracking
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import point, run_of, steps_by_key

POINTS = 100_000 if os.environ.get("MLPROXY_TEST_LARGE") == "1" else 20_000
CONNECTIONS = 8
POINTS_PER_UPSTREAM_CALL = 100


def test_many_single_calls_become_few(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Points logged one call at a time over eight connections arrive once, in order, in 1 % as many calls."""
    run = client.create_run(experiment, "volume")
    emulator.clear_calls()
    asyncio.run(log_points(server.port, run.run_id))
    client.end(run)
    drain_all(server, timeout=300)
    batches = [call for call in emulator.calls() if call["path"].endswith("/runs/log-batch")]
    assert len(batches) <= POINTS // POINTS_PER_UPSTREAM_CALL
    held = run_of(emulator, run.run_id)
    per_connection = POINTS // CONNECTIONS
    assert held.points == Counter(
        point(f"loss-{number}", step, BASE_MS + step, step / 8)
        for number in range(CONNECTIONS)
        for step in range(per_connection)
    )
    assert steps_by_key(held.points_in_order) == {
        f"loss-{number}": list(range(per_connection)) for number in range(CONNECTIONS)
    }
    assert held.ended_last
    print(f"{POINTS} points in {len(batches)} upstream log-batch calls")


async def log_points(port: int, run_id: str) -> None:
    """One metric per connection, all at once."""
    await asyncio.gather(*(log_one_metric(port, run_id, f"loss-{number}") for number in range(CONNECTIONS)))


async def log_one_metric(port: int, run_id: str, key: str) -> None:
    """One connection that logs one point after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for step in range(POINTS // CONNECTIONS):
        body = json.dumps(
            {"run_id": run_id, "key": key, "value": step / 8, "timestamp": BASE_MS + step, "step": step}
        ).encode()
        head = (
            f"POST {API}/runs/log-metric HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status, length = 0, 0
        while (line := (await reader.readline()).strip()) or not status:
            if not status:
                status = int(line.split()[1])
            elif line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answer = await reader.readexactly(length)
        assert status == 200, answer
    writer.close()
    await writer.wait_closed()
