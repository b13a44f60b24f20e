"""Clients go first, and what delivery has to write down is written all the same."""

import asyncio
import itertools
import time

import pytest

from server.commit.writer import Work
from tests.support.attempts import quickest_of
from tests.support.tracking import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")

_CLIENTS = 40


async def test_a_stream_of_clients_does_not_hold_up_delivery(bench: Bench) -> None:
    """While there is never a moment without a waiting client, delivery commits within a second."""
    run_id = await bench.run()
    is_over = asyncio.Event()
    answers: list[int] = []

    async def log(client: int) -> None:
        for number in itertools.count():
            fields = {"run_id": run_id, "key": f"t{client}", "value": str(number)}
            answers.append((await bench.send("POST", "runs/set-tag", fields)).status_code)
            if is_over.is_set():
                return

    # Each commit takes a moment, in which the next clients arrive.
    slow = Work(lambda transaction: time.sleep(0.02))

    async def hold() -> None:
        while not is_over.is_set():
            await bench.writer.commit(slow)

    clients = [asyncio.create_task(log(number)) for number in range(_CLIENTS)]
    clients += [asyncio.create_task(hold()) for _ in range(4)]

    async def commit_in_background() -> float:
        began = time.monotonic()
        await asyncio.wait_for(bench.writer.commit(Work(lambda transaction: None), background=True), 60)
        return time.monotonic() - began

    await asyncio.sleep(0.2)
    try:
        took = await quickest_of(commit_in_background, under=1.5)
    finally:
        is_over.set()
        await asyncio.gather(*clients)
    assert took < 1.5
    assert set(answers) == {200}
