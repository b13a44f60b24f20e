"""What of a batch fits into a run: told by what was learned, what the run holds, and where it was full."""

from collections.abc import AsyncIterator, Iterable

import httpx
import pytest
import pytest_asyncio

from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit
from server.journal.contents import Contents
from server.journal.leases import Lane, read_lane
from server.journal.limits import learn_limit
from server.replay.deliveries.capacity import RunCapacity
from server.replay.deliveries.delivery import Division
from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.failures import UpstreamFailure
from server.upstream.runs import UpstreamRuns
from tests.integration.overflow.conftest import NOW_MS, Bench, contents, metric, param, tag
from tests.support.databases import MakeDatabase
from tests.unit.upstream.conftest import ADDRESS, FakeIdentity, TurnedClock, Wire

LIMIT = WorkspaceLimit


class Scene:
    """A run in a workspace that the test plays, and one who decides what fits into it."""

    def __init__(self, bench: Bench, wire: Wire, runs: UpstreamRuns, clock: TurnedClock) -> None:
        self.bench = bench
        self.wire = wire
        self.clock = clock
        self.capacity = RunCapacity(database=bench.database, clock=clock, runs=runs)
        self.holds()

    def holds(
        self, params: Iterable[str] = (), tags: Iterable[str] = (), metrics: Iterable[str] = ()
    ) -> None:
        """From now on the workspace shows this of the run."""
        data = {
            "params": [{"key": key, "value": "x"} for key in params],
            "tags": [{"key": key, "value": "x"} for key in tags],
            "metrics": [{"key": key, "value": 0.5, "timestamp": 1, "step": 1} for key in metrics],
        }
        answer = {"run": {"info": {"run_id": "r"}, "data": data}}
        self.wire.answer = lambda _: httpx.Response(200, json=answer)

    def learn(self, limit: WorkspaceLimit, value: int) -> None:
        """A limit was learned from another run."""
        with self.bench.database.writing(NOW_MS) as transaction:
            learn_limit(transaction, LimitRefusal(limit, value), "seen")

    def has_overflowed(self) -> None:
        """Something of this run has overflowed before."""
        with self.bench.database.writing(NOW_MS) as transaction:
            transaction.run("UPDATE runs SET overflow_lane_id = 999 WHERE run_pk = ?", (self.bench.run_pk,))

    @property
    def lane(self) -> Lane:
        with self.bench.database.reading() as transaction:
            return read_lane(transaction, self.bench.data_lane)

    def settle(self, position: int) -> None:
        """The lane has settled up to there."""
        with self.bench.database.writing(NOW_MS) as transaction:
            transaction.run(
                "UPDATE lanes SET settled_position = ?, last_position = ? WHERE lane_id = ?",
                (position, position + 100, self.bench.data_lane),
            )

    async def divide(self, rows: Contents, refusal: LimitRefusal | None = None) -> Division:
        return await self.capacity.divide(self.lane, "r", rows, refusal)

    async def send(self, rows: Contents, last: int) -> Division:
        """Divide, have the workspace take what fits, settle."""
        lane = self.lane
        division = await self.capacity.divide(lane, "r", rows, None)
        if division.to_send.count:
            self.capacity.note_sent(lane, last, division.to_send)
        self.settle(last)
        return division

    @property
    def reads(self) -> int:
        return len(self.wire.requests)


@pytest.fixture
def database_url(make_database: MakeDatabase) -> str:
    """SQLite: nothing here depends on the database."""
    return make_database("sqlite")


@pytest_asyncio.fixture
async def scene(bench: Bench) -> AsyncIterator[Scene]:
    """A run that holds nothing, in a workspace whose limits nobody knows."""
    clock, wire = TurnedClock(), Wire()
    clock.seconds = NOW_MS / 1000
    tokens = TokenSource(
        "managed-identity", clock=clock, jitter=lambda: 1.0, open_credential=FakeIdentity(clock).open
    )
    async with httpx.AsyncClient(transport=httpx.MockTransport(wire)) as http:
        yield Scene(bench, wire, UpstreamRuns(Connection(ADDRESS, tokens, http, clock=clock)), clock)


def overflow_of(division: Division) -> list[tuple[int, WorkspaceLimit]]:
    """Positions that overflow, each with its limit."""
    return [(item.row.position, item.limit) for item in division.overflow]


def metrics(first: int, count: int) -> Contents:
    """Points of as many metrics, one each."""
    return contents(*[metric(position, f"m{position}") for position in range(first, first + count)])


@pytest.mark.asyncio
async def test_without_any_knowledge_everything_is_sent_and_nothing_is_asked(scene: Scene) -> None:
    """Runs that stay within all limits cost no call more."""
    division = await scene.divide(contents(param(1, "p"), tag(2, "t"), metric(3, "m")))
    assert (division.to_send.count, overflow_of(division), scene.reads) == (3, [], 0)


@pytest.mark.asyncio
async def test_long_texts_are_decided_without_a_call(scene: Scene) -> None:
    """Where the limit is known, a text that is longer is not even tried; one that just fits is."""
    for limit in (LIMIT.PARAM_KEY, LIMIT.PARAM_VALUE, LIMIT.TAG_KEY, LIMIT.TAG_VALUE, LIMIT.METRIC_NAME):
        scene.learn(limit, 4)
    division = await scene.divide(
        contents(
            param(1, "12345"),
            param(2, "k", "12345"),
            tag(3, "12345"),
            tag(4, "k", "12345"),
            metric(5, "12345"),
            param(6, "1234", "1234"),
            tag(7, "1234", "1234"),
            metric(8, "1234"),
        )
    )
    assert overflow_of(division) == [
        (1, LIMIT.PARAM_KEY),
        (2, LIMIT.PARAM_VALUE),
        (3, LIMIT.TAG_KEY),
        (4, LIMIT.TAG_VALUE),
        (5, LIMIT.METRIC_NAME),
    ]
    assert (division.to_send.count, scene.reads) == (3, 0)


@pytest.mark.asyncio
async def test_a_batch_that_alone_is_too_much_is_divided_before_it_is_refused(scene: Scene) -> None:
    """The first names in the order of the lane fit; what the run holds already is asked once."""
    scene.learn(LIMIT.METRIC_NAMES, 5)
    scene.holds(metrics=["m3", "old"])
    division = await scene.divide(metrics(1, 8))
    assert overflow_of(division) == [(position, LIMIT.METRIC_NAMES) for position in (5, 6, 7, 8)]
    assert [row.position for row in division.to_send.points] == [1, 2, 3, 4]
    assert scene.reads == 1


@pytest.mark.asyncio
async def test_what_a_run_holds_is_read_once_and_then_kept_up_to_date(scene: Scene) -> None:
    """Batch after batch of a full run costs no read, until something else was done to the run."""
    scene.learn(LIMIT.METRIC_NAMES, 5)
    scene.has_overflowed()
    scene.settle(0)
    await scene.send(metrics(1, 4), 4)
    second = await scene.send(contents(metric(5, "m1"), metric(6, "new"), metric(7, "one too many")), 7)
    assert overflow_of(second) == [(7, LIMIT.METRIC_NAMES)]
    third = await scene.send(contents(metric(8, "one too many")), 8)
    assert overflow_of(third) == [(8, LIMIT.METRIC_NAMES)]
    await scene.send(contents(metric(9, "new")), 9)
    assert scene.reads == 1
    scene.settle(10)  # an entry of another kind was sent between
    scene.holds(metrics=["new"])
    fourth = await scene.send(contents(metric(11, "one too many")), 11)
    assert (overflow_of(fourth), scene.reads) == ([], 2)


@pytest.mark.asyncio
async def test_after_a_failure_the_run_is_read_anew(scene: Scene) -> None:
    """Nobody knows what a failed call has done."""
    scene.learn(LIMIT.METRIC_NAMES, 5)
    scene.has_overflowed()
    await scene.divide(metrics(1, 2))
    scene.capacity.note_failed(scene.lane)
    await scene.divide(metrics(1, 2))
    assert scene.reads == 2


@pytest.mark.asyncio
async def test_a_refusal_with_figures_divides_at_once(scene: Scene) -> None:
    """Limit and size say how many of the new names are too many, also where unseen tags count."""
    scene.holds(tags=["mlflow.rootRunId", "azureml.x", "mine"])
    rows = contents(*[tag(position, f"t{position}") for position in range(1, 8)])
    # Nine would be held: seven new ones, `mine`, and one that the workspace does not show.
    division = await scene.divide(rows, LimitRefusal(LIMIT.TAGS, 6, 9))
    # Four would fit; one place is kept for the tag that tells of the overflow.
    assert [row.position for row in division.to_send.entries] == [1, 2, 3]
    assert overflow_of(division) == [(position, LIMIT.TAGS) for position in (4, 5, 6, 7)]


@pytest.mark.asyncio
async def test_a_refusal_without_figures_is_found_by_halving(scene: Scene) -> None:
    """Many rows stay together; one alone overflows, and from then on its run is known to be full."""
    scene.holds(metrics=["m1", "m2"])
    refusal = LimitRefusal(LIMIT.METRIC_NAMES, None)
    many = await scene.divide(metrics(3, 2), refusal)
    assert (many.to_send.count, overflow_of(many)) == (2, [])
    alone = await scene.divide(metrics(3, 1), refusal)
    assert (alone.to_send.count, overflow_of(alone)) == (0, [(3, LIMIT.METRIC_NAMES)])
    scene.has_overflowed()
    later = await scene.divide(contents(metric(4, "m4"), metric(5, "m2")))
    assert overflow_of(later) == [(4, LIMIT.METRIC_NAMES)]
    assert await scene.capacity.cannot_hold_more_metrics(scene.lane, 2)
    assert not await scene.capacity.cannot_hold_more_metrics(scene.lane, 1)


@pytest.mark.asyncio
async def test_a_metric_without_room_for_rows_is_remembered(scene: Scene) -> None:
    """A name that takes no more points overflows without being tried again; other names go on."""
    alone = await scene.divide(contents(metric(1, "full")), LimitRefusal(LIMIT.METRIC_ROWS, 1_000_000))
    assert overflow_of(alone) == [(1, LIMIT.METRIC_ROWS)]
    later = await scene.divide(contents(metric(2, "full"), metric(3, "other")))
    assert overflow_of(later) == [(2, LIMIT.METRIC_ROWS)]


@pytest.mark.asyncio
async def test_a_refusal_that_a_row_cannot_cause_sets_nothing_aside(scene: Scene) -> None:
    """A tag that is refused by a limit on params is a riddle: it is parked, not taken for overflow."""
    division = await scene.divide(contents(tag(1, "t")), LimitRefusal(LIMIT.PARAMS, 200, 201))
    assert (division.to_send.count, overflow_of(division)) == (1, [])
    division = await scene.divide(contents(metric(1, "m")), LimitRefusal(LIMIT.CALL_ROWS, 0))
    assert (division.to_send.count, overflow_of(division)) == (1, [])


@pytest.mark.asyncio
async def test_what_is_known_of_a_run_is_forgotten_after_a_day(scene: Scene) -> None:
    """A limit that was raised is found out."""
    scene.has_overflowed()
    await scene.divide(contents(metric(1, "m1")), LimitRefusal(LIMIT.METRIC_NAMES, None))
    assert overflow_of(await scene.divide(contents(metric(2, "m2")))) == [(2, LIMIT.METRIC_NAMES)]
    scene.clock.seconds += 24 * 3600 + 1
    assert overflow_of(await scene.divide(contents(metric(2, "m2")))) == []


@pytest.mark.asyncio
async def test_a_workspace_that_cannot_be_asked_holds_the_batch(scene: Scene) -> None:
    """An outage is not guessed around; a refusal to tell is, by sending."""
    scene.learn(LIMIT.METRIC_NAMES, 1)
    scene.wire.answer = lambda _: httpx.Response(503)
    with pytest.raises(UpstreamFailure) as failed:
        await scene.divide(metrics(1, 2))
    assert failed.value.verdict is Verdict.RETRY
    scene.wire.answer = lambda _: httpx.Response(400, json={"error_code": "BAD_REQUEST", "message": "no"})
    division = await scene.divide(metrics(1, 2))
    assert (division.to_send.count, overflow_of(division)) == (2, [])
