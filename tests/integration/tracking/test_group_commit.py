"""The writer: what shares a transaction, what a failure takes with it, and when answers are given."""

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import create_engine, event, text

from server.commit.writer import Bounds, Work
from server.database.engine import Transaction
from tests.support.tracking import DEADLINE_SECONDS, Bench, bench_server, refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

_BODY = b'{"run_id": "%s", "key": "t", "value": "1"}'


def _ask(bench: Bench, route: str, **fields: Any) -> "asyncio.Task[Any]":
    return asyncio.create_task(bench.send("POST", f"runs/{route}", fields))


async def test_what_waits_together_is_committed_together(bench: Bench) -> None:
    """Requests that arrive while the writer is busy share one transaction."""
    run_id = await bench.run()
    async with bench.held():
        asked = [_ask(bench, "set-tag", run_id=run_id, key=f"t{number}", value="1") for number in range(20)]
        await bench.until_waiting(20)
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    assert bench.groups[-1] == 20


async def test_a_lone_request_does_not_wait_for_company(bench: Bench) -> None:
    """An idle writer commits a single request at once, in a group of its own."""
    await bench.run()
    assert bench.groups[-1] == 1


async def test_those_answered_together_are_waited_for_together(tmp_path: Path) -> None:
    """After a group of four, the next begins when all four are back, not with the first."""
    bounds = Bounds(company_seconds=DEADLINE_SECONDS)
    async with bench_server(f"sqlite:///{tmp_path}/proxy.db", bounds=bounds) as bench:
        run_id = await bench.run()

        def ask(value: int) -> "asyncio.Task[Any]":
            return _ask(bench, "set-tag", run_id=run_id, key=f"t{value}", value="1")

        async with bench.held():
            asked = [ask(number) for number in range(3)]
            await bench.until_waiting(3)
            groups = len(bench.groups)
        while len(bench.groups) == groups:  # noqa: ASYNC110 - until the writer is no longer held
            await asyncio.sleep(0)
        # Whoever held it was answered while three waited: four are expected.
        await asyncio.gather(*asked, ask(3))
        first = [ask(number) for number in range(3)]
        done, _ = await asyncio.wait(first, timeout=0.3)
        assert not done
        await asyncio.gather(*first, ask(3))
        assert bench.groups[-2:] == [4, 4]


async def test_who_stays_away_is_waited_for_no_more(tmp_path: Path) -> None:
    """One of eight goes on alone: it waits for the others a few times, then for nobody."""
    bounds = Bounds(company_seconds=0.2)
    async with bench_server(f"sqlite:///{tmp_path}/proxy.db", bounds=bounds) as bench:
        run_id = await bench.run()
        async with bench.held():
            asked = [
                _ask(bench, "set-tag", run_id=run_id, key=f"t{number}", value="1") for number in range(8)
            ]
            await bench.until_waiting(8)
        await asyncio.gather(*asked)
        waited = []
        for _ in range(6):
            before = time.monotonic()
            await bench.post("runs/set-tag", run_id=run_id, key="alone", value="1")
            waited.append(time.monotonic() - before)
        assert bench.groups[-6:] == [1] * 6
        assert min(waited[:2]) >= 0.2
        assert min(waited[4:]) < 0.2


async def test_delivery_is_no_company(tmp_path: Path) -> None:
    """However much delivery commits at a time, a lone client waits for none of it."""
    bounds = Bounds(company_seconds=0.3)
    async with bench_server(f"sqlite:///{tmp_path}/proxy.db", bounds=bounds) as bench:
        run_id = await bench.run()
        for number in range(3):
            async with bench.held():
                settled = [
                    asyncio.ensure_future(bench.writer.commit(Work(lambda _: None), background=True))
                    for _ in range(5)
                ]
                await bench.until_waiting(5)
            await asyncio.gather(*settled)
            assert bench.groups[-1] == 5
            before = time.monotonic()
            await bench.post("runs/set-tag", run_id=run_id, key="alone", value=str(number))
            waited = time.monotonic() - before
            if waited < 0.3:
                return
        pytest.fail("each time a client waited for delivery to come back")


async def test_of_two_conflicting_params_in_a_group_the_first_wins(bench: Bench) -> None:
    """The second request of the group is refused against what the first one wrote."""
    run_id = await bench.run()
    async with bench.held():
        first = _ask(bench, "log-parameter", run_id=run_id, key="p", value="1")
        await bench.until_waiting(1)
        second = _ask(bench, "log-batch", run_id=run_id, params=[{"key": "p", "value": "2"}])
        await bench.until_waiting(2)
    assert (await first).status_code == 200
    assert refusal_of(await second)[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert (await bench.data(run_id))[1] == {"p": "1"}


async def test_a_refused_request_of_a_group_leaves_nothing_behind(bench: Bench) -> None:
    """Its neighbours are kept, and of it neither store nor journal holds a trace."""
    run_id = await bench.run(run_name="n")
    await bench.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    async with bench.held():
        asked = [
            _ask(bench, "set-tag", run_id=run_id, key="before", value="1"),
            _ask(
                bench,
                "log-batch",
                run_id=run_id,
                params=[{"key": "new", "value": "1"}, {"key": "p", "value": "2"}],
                tags=[{"key": "lost", "value": "1"}],
                metrics=[{"key": "lost", "value": 1, "timestamp": 1}],
            ),
            _ask(bench, "set-tag", run_id=run_id, key="after", value="1"),
        ]
        await bench.until_waiting(3)
    assert [(await one).status_code for one in asked] == [200, 400, 200]
    assert await bench.data(run_id) == ({}, {"p": "1"}, {"mlflow.runName": "n", "before": "1", "after": "1"})
    lane = await bench.journal.data_lane(run_id)
    assert lane.positions == [1, 2, 3, 4]
    assert lane.last_position == 4
    assert [lane.entries[position].key for position in (3, 4)] == ["before", "after"]


async def test_a_tag_set_earlier_in_the_group_can_be_deleted_in_it(bench: Bench) -> None:
    """Each request sees what the requests before it in the group did, and only that."""
    run_id = await bench.run()
    async with bench.held():
        asked = []
        for number, (route, fields) in enumerate(
            [
                ("delete-tag", {"key": "t"}),
                ("set-tag", {"key": "t", "value": "1"}),
                ("delete-tag", {"key": "t"}),
                ("delete-tag", {"key": "t"}),
            ]
        ):
            asked.append(_ask(bench, route, run_id=run_id, **fields))
            await bench.until_waiting(number + 1)
    assert [(await one).status_code for one in asked] == [404, 200, 200, 404]


async def test_a_run_deleted_in_the_group_refuses_what_follows(bench: Bench) -> None:
    """Rare and hot kinds in one group are worked in the order they came."""
    run_id = await bench.run()
    async with bench.held():
        asked = []
        for number, (route, fields) in enumerate(
            [("set-tag", {"key": "a", "value": "1"}), ("delete", {}), ("set-tag", {"key": "b", "value": "1"})]
        ):
            asked.append(_ask(bench, route, run_id=run_id, **fields))
            await bench.until_waiting(number + 1)
    assert [(await one).status_code for one in asked] == [200, 200, 400]


async def test_a_database_error_fails_only_the_request_that_causes_it(bench: Bench) -> None:
    """The group is rolled back and worked one by one; neighbours do not notice."""
    run_id = await bench.run()

    def stumble(transaction: Transaction) -> None:
        transaction.run("INSERT INTO no_such_table VALUES (1)")

    async with bench.held():
        before = _ask(bench, "set-tag", run_id=run_id, key="before", value="1")
        await bench.until_waiting(1)
        failing = asyncio.ensure_future(bench.writer.commit(Work(stumble)))
        await bench.until_waiting(2)
        after = _ask(bench, "log-metric", run_id=run_id, key="m", value=1, timestamp=1)
        await bench.until_waiting(3)
    with pytest.raises(Exception, match="could not be committed"):
        await failing
    assert [(await one).status_code for one in (before, after)] == [200, 200]
    metrics, _, tags = await bench.data(run_id)
    assert (metrics, tags["before"]) == ({"m": 1}, "1")
    lane = await bench.journal.data_lane(run_id)
    assert lane.positions == [1, 2, 3]


async def test_an_unexpected_error_in_a_job_tells_the_client_nothing(bench: Bench) -> None:
    """What went wrong inside stays in the log."""

    def stumble(transaction: Transaction) -> None:
        raise RuntimeError("secret inside")

    with pytest.raises(Exception, match="nothing of it was kept") as caught:
        await bench.writer.commit(Work(stumble))
    assert "secret" not in str(caught.value)


async def test_a_caller_that_goes_away_fails_nobody_and_its_work_is_done(bench: Bench) -> None:
    """Once handed over, a write is committed whether or not its caller still waits."""
    run_id = await bench.run()
    async with bench.held():
        leaving = _ask(bench, "set-tag", run_id=run_id, key="left", value="1")
        await bench.until_waiting(1)
        staying = _ask(bench, "set-tag", run_id=run_id, key="stayed", value="1")
        await bench.until_waiting(2)
        leaving.cancel()
        await asyncio.wait([leaving])
    assert (await staying).status_code == 200
    tags = (await bench.data(run_id))[2]
    assert (tags["left"], tags["stayed"]) == ("1", "1")


async def test_a_client_that_disconnects_after_its_request_is_still_served(bench: Bench) -> None:
    """A connection that closes while the write waits does not take the write back."""
    run_id = await bench.run()
    messages = [
        {"type": "http.request", "body": _BODY % run_id.encode(), "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise ConnectionResetError("the client is gone")

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/2.0/mlflow/runs/set-tag",
        "raw_path": b"/api/2.0/mlflow/runs/set-tag",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    async with bench.held():
        request = asyncio.create_task(bench.door(scope, receive, send))
        await bench.until_waiting(1)
    await asyncio.wait([request], timeout=DEADLINE_SECONDS)
    assert request.done()
    assert (await bench.data(run_id))[2]["t"] == "1"


async def test_an_answer_is_given_only_after_the_commit(bench: Bench) -> None:
    """While the commit is held back nobody is answered, and nothing is visible to others."""
    run_id = await bench.run()
    reached, go_on = threading.Event(), threading.Event()

    def hold_commit(_: object) -> None:
        reached.set()
        assert go_on.wait(DEADLINE_SECONDS)

    url = bench.database.url
    onlooker = create_engine(url)
    count = text("SELECT count(*) FROM tags WHERE key = 'slow'")
    event.listen(bench.database.engine, "commit", hold_commit)
    try:
        asked = _ask(bench, "set-tag", run_id=run_id, key="slow", value="1")
        assert await asyncio.to_thread(reached.wait, DEADLINE_SECONDS)
        with onlooker.connect() as connection:
            seen_before = connection.execute(count).scalar_one()
        answered_before = asked.done()
    finally:
        go_on.set()
    assert (await asked).status_code == 200
    event.remove(bench.database.engine, "commit", hold_commit)
    with onlooker.connect() as connection:
        seen_after = connection.execute(count).scalar_one()
    onlooker.dispose()
    assert (answered_before, seen_before, seen_after) == (False, 0, 1)


async def test_a_commit_that_fails_is_not_acknowledged(bench: Bench) -> None:
    """When the flush itself fails, the client hears of it and nothing is kept."""
    run_id = await bench.run()

    def fail_commit(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    event.listen(bench.database.engine, "commit", fail_commit)
    try:
        answer = await bench.send("POST", "runs/set-tag", {"run_id": run_id, "key": "t", "value": "1"})
    finally:
        event.remove(bench.database.engine, "commit", fail_commit)
    assert refusal_of(answer)[:2] == (429, "RESOURCE_EXHAUSTED")
    assert answer.headers["retry-after"]
    assert "t" not in (await bench.data(run_id))[2]


async def test_a_writer_that_stops_commits_what_waits_and_takes_nothing_more(bench: Bench) -> None:
    """What was handed over before the stop is answered; what comes after is told to try elsewhere."""
    run_id = await bench.run()
    async with bench.held():
        asked = _ask(bench, "set-tag", run_id=run_id, key="t", value="1")
        await bench.until_waiting(1)
        stopping = asyncio.create_task(bench.writer.stop())
        await asyncio.sleep(0)
        late = await bench.send("POST", "runs/set-tag", {"run_id": run_id, "key": "late", "value": "1"})
    await stopping
    assert (await asked).status_code == 200
    assert refusal_of(late)[:2] == (503, "TEMPORARILY_UNAVAILABLE")


# --- bounds ---------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session", params=["bytes", "seconds"])
async def narrow(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """A writer that lets little wait, in one respect or the other."""
    bounds = Bounds(waiting_bytes=500) if request.param == "bytes" else Bounds(waiting_seconds=0.0)
    async with bench_server(f"sqlite:///{tmp_path}/proxy.db", bounds=bounds) as made:
        yield made


async def test_more_than_may_wait_is_told_to_come_back(narrow: Bench) -> None:
    """Beyond the bounds the answer is 429 with Retry-After, and what waited already is served."""
    run_id = await narrow.run()
    async with narrow.held():
        waiting = _ask(narrow, "set-tag", run_id=run_id, key="first", value="1")
        await narrow.until_waiting(1)
        refused = await narrow.send("POST", "runs/set-tag", {"run_id": run_id, "key": "more", "value": "1"})
    assert refusal_of(refused)[:2] == (429, "REQUEST_LIMIT_EXCEEDED")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await waiting).status_code == 200
    tags = (await narrow.data(run_id))[2]
    assert ("first" in tags, "more" in tags) == (True, False)


async def test_a_group_is_bounded(tmp_path: Path) -> None:
    """What waits beyond a group's bound of rows goes into the next groups."""
    bounds = Bounds(group_rows=10)
    async with bench_server(f"sqlite:///{tmp_path}/proxy.db", bounds=bounds) as bench:
        run_id = await bench.run()
        async with bench.held():
            asked = [
                _ask(bench, "set-tag", run_id=run_id, key=f"t{number}", value="1") for number in range(20)
            ]
            await bench.until_waiting(20)
        await asyncio.gather(*asked)
        assert bench.groups[-4:] == [5, 5, 5, 5]
