"""The connection to Postgres is lost in the middle of a COMMIT: what was kept is kept once, and told so."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from server.commit.writer import Work
from server.database.commit_marks import CommitMarks
from server.database.postgres import OutcomeUnknownError
from server.domain.operations import SetTag
from tests.support.postgres import PostgresProcess
from tests.support.tcp_proxy import TcpProxy
from tests.support.tracking import Bench, bench_server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.fault("16")]

_COMMIT = b"COMMIT"
_numbers = count()
_SLOW_COMMIT = """
CREATE SEQUENCE attempts;
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') = 1 THEN
        PERFORM pg_sleep({seconds});
        {then};
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON runs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION linger();
"""
"""The first COMMIT of a new run takes so long, and then ends as `then` says."""


@dataclass(slots=True)
class Site:
    """The tracking routes over a database at the end of a wire that can be cut."""

    bench: Bench
    wire: TcpProxy
    postgres: PostgresProcess
    database: str

    async def settle(self) -> None:
        """Have the writer and its connections ready: the next COMMIT is the test's own."""
        await self.bench.post("experiments/set-experiment-tag", experiment_id="0", key="warm", value="1")

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """Look into the database past the wire."""
        return self.postgres.execute(self.database, sql)

    def run_ids(self) -> list[str]:
        """Every run there is."""
        return [str(row[0]) for row in self.ask("SELECT run_id FROM runs")]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    """A Postgres that a test may kill."""
    # Not under pytest's own folder: as root, Postgres runs under a user who may not enter there.
    with (
        tempfile.TemporaryDirectory(prefix="mlproxy-postgres-") as folder,
        # Nothing reaches the disk before a COMMIT takes it there: a crash then forgets the most.
        PostgresProcess.start(Path(folder), wal_writer_delay="10s", wal_writer_flush_after=0) as running,
    ):
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def site(postgres: PostgresProcess) -> AsyncIterator[Site]:
    """An empty database and the tracking routes."""
    name = f"lost_{next(_numbers)}"
    postgres.create_database(name)
    with TcpProxy(postgres.port) as wire:
        async with bench_server(postgres.url(name, port=wire.port)) as bench:
            made = Site(bench, wire, postgres, name)
            await made.settle()
            yield made


async def test_a_commit_that_took_effect_is_not_done_again(site: Site) -> None:
    """The answer to COMMIT is lost: the run is there once, and its client is told so."""
    site.wire.cut_once_after(_COMMIT)
    run_id = await site.bench.run(experiment_id="0")
    assert site.wire.words_seen == 1
    assert site.run_ids() == [run_id]


async def test_a_commit_that_never_arrived_is_done_again(site: Site) -> None:
    """The COMMIT itself is lost: the run is made by a second transaction."""
    site.wire.cut_once_before(_COMMIT)
    run_id = await site.bench.run(experiment_id="0")
    assert site.wire.words_seen == 1
    assert site.run_ids() == [run_id]


@pytest.mark.parametrize("is_withheld", [False, True])
async def test_everybody_in_the_group_is_answered_rightly(site: Site, is_withheld: bool) -> None:
    """Every request of a group whose COMMIT was lost has its effect once, and those refused are refused."""
    run_id = await site.bench.run(experiment_id="0")
    await site.bench.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    asked = []
    async with site.bench.held():
        for path, fields in (
            ("runs/set-tag", {"run_id": run_id, "key": "t", "value": "1"}),
            ("runs/delete-tag", {"run_id": run_id, "key": "t"}),
            ("runs/log-parameter", {"run_id": run_id, "key": "p", "value": "2"}),
            ("runs/create", {"experiment_id": "0"}),
            ("runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": 1}),
        ):
            asked.append(asyncio.create_task(site.bench.send("POST", path, fields)))
            await site.bench.until_waiting(len(asked))
        # The work that holds the writer is committed first.
        (site.wire.cut_once_before if is_withheld else site.wire.cut_once_after)(_COMMIT)
    answers = [(await one).status_code for one in asked]
    assert site.wire.words_seen == 1
    assert answers == [200, 200, 400, 200, 200]
    assert len(site.run_ids()) == 2
    lane = await site.bench.journal.data_lane(run_id)
    assert lane.positions == list(range(1, lane.last_position + 1))
    assert [entry for entry in lane.entries.values() if entry == SetTag("t", "1")] == [SetTag("t", "1")]
    assert len(lane.points) == 1


async def test_a_commit_that_is_still_under_way_is_waited_for(site: Site) -> None:
    """The connection is gone, but Postgres is still committing: nothing is sent again before it has ended."""
    site.ask(_SLOW_COMMIT.format(seconds=1.0, then="NULL"))
    site.wire.cut_once_after(_COMMIT)
    run_id = await site.bench.run(experiment_id="0")
    assert site.run_ids() == [run_id]


async def test_a_commit_that_fails_after_all_is_done_again(site: Site) -> None:
    """The connection is gone, and Postgres then undoes what it was committing: it is done again, once."""
    site.ask(_SLOW_COMMIT.format(seconds=1.0, then="RAISE 'no'"))
    site.wire.cut_once_after(_COMMIT)
    run_id = await site.bench.run(experiment_id="0")
    assert site.run_ids() == [run_id]


async def test_a_crash_of_postgres_during_the_commit_loses_nothing(site: Site) -> None:
    """Postgres dies in the COMMIT, and gives the lost transaction's number to another's, which is kept."""
    # However long this machine takes to stop Postgres, which ends the sleep, and to start it again.
    site.bench.writer._marks._answer_seconds = 240.0
    site.ask(_SLOW_COMMIT.format(seconds=300, then="NULL"))
    site.wire.cut_once_after(_COMMIT)
    asked = asyncio.create_task(site.bench.run(experiment_id="0"))
    committing = "SELECT backend_xid::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    while not (lost := site.ask(committing)):  # noqa: ASYNC110 - Postgres tells nobody
        await asyncio.sleep(0.02)
    site.wire.cut()
    await asyncio.to_thread(site.postgres.kill)
    await asyncio.to_thread(site.postgres.launch)
    # Without this the test would not show what it is for.
    assert lost[0] in [site.ask("SELECT pg_current_xact_id()::text")[0] for _ in range(5)]
    site.ask("DROP TRIGGER linger ON runs")  # the crash has undone its count of attempts too
    site.wire.heal()
    run_id = await asked
    assert site.run_ids() == [run_id]


async def test_what_cannot_be_found_out_is_said_to_be_unknown(postgres: PostgresProcess) -> None:
    """While nobody can be asked, no transaction is called kept or lost."""
    name = f"lost_{next(_numbers)}"
    postgres.create_database(name)
    with TcpProxy(postgres.port) as wire:
        async with bench_server(postgres.url(name, port=wire.port)) as bench:
            marks = CommitMarks(bench.database, answer_seconds=0.5)
            marks.prepare(1)
            with bench.database.writing(1) as transaction:
                transaction.run("INSERT INTO facts (name, value) VALUES ('a', 'b')")
                mark = marks.mark(transaction)
            assert marks.was_committed(mark)
            wire.cut()
            with pytest.raises(OutcomeUnknownError):
                await asyncio.to_thread(marks.was_committed, mark)
            wire.heal()


async def test_what_writes_nothing_is_not_made_to_wait_for_the_disk(site: Site) -> None:
    """A transaction that only looks leaves no mark, so that its COMMIT costs nothing."""
    before = site.ask("SELECT writer, number, marked_at_ms FROM commit_marks")
    await site.bench.writer.commit(Work(lambda transaction: transaction.rows("SELECT 1")))
    assert site.ask("SELECT writer, number, marked_at_ms FROM commit_marks") == before
