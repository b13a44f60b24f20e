"""Two replicas that remember runs write what one would that reads them each time."""

import random
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from server.commit.remembered_runs import RememberedRuns
from server.commit.run_requests import RunWrite
from server.commit.run_writes import apply_run_writes
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.entities import LifecycleStage, Metric, RunStatus
from server.domain.operations import DeleteRun, RestoreRun, UpdateRun
from server.journal.entries import Appends, append_entry
from server.journal.lanes import LaneKind, NewLane
from server.journal.points import read_points
from server.services.experiments import add_default_experiment
from server.store import experiments, runs
from tests.support.databases import MakeDatabase

NOW_MS = 1_700_000_000_000
RUN_IDS = [f"{number:032x}" for number in range(3)]
GROUPS = 120
REPLICAS = 2


class _PowerCutError(Exception):
    pass


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, make_database: MakeDatabase) -> Iterator[list[Database]]:
    """The store of those that remember, opened by each replica, and last that of the one that does not."""
    remembering = make_database(request.param)
    opened = [Database(remembering) for _ in range(REPLICAS)] + [Database(make_database(request.param))]
    for database in (opened[0], opened[-1]):
        prepare_schema(database)
        with database.writing(NOW_MS) as transaction:
            add_default_experiment(transaction)
            for run_id in RUN_IDS:
                make_run(transaction, run_id)
    yield opened
    for database in opened:
        database.close()


def make_run(transaction: Transaction, run_id: str) -> None:
    """A run that nothing was logged to."""
    new = runs.NewRun(
        run_id=run_id,
        experiment_id=0,
        name="run",
        user_id="",
        status=RunStatus.RUNNING,
        start_time_ms=None,
        artifact_uri=f"mlflow-artifacts:/0/{run_id}/artifacts",
        parent_run_id=None,
        principal=None,
        tags=[],
    )
    [keys] = runs.take_keys(transaction, 1)
    lanes = {
        keys.data_lane: NewLane(LaneKind.RUN_DATA, keys.run_pk),
        keys.artifact_lane: NewLane(LaneKind.RUN_ARTIFACTS, keys.run_pk),
    }
    opened = Appends(transaction, opened=lanes).changes()
    transaction.run_all([*runs.inserted(transaction, [(new, keys)]), *opened])


def draw_group(draw: random.Random) -> list[RunWrite]:
    """Some requests: new points, points that are there already, earlier ones, params that may be refused."""
    group = []
    for _ in range(draw.randint(1, 4)):
        metrics = [
            Metric(f"m{draw.randint(0, 5)}", step, NOW_MS + draw.randint(0, 3), draw.choice([0.0, 0.5]), 0)
            for step in draw.choices(range(12), k=draw.randint(0, 6))
        ]
        params = [("p", draw.choice("ab"))] if draw.random() < 0.2 else []
        update = UpdateRun(
            draw.choice([None, "FINISHED", "RUNNING"]), draw.choice([None, 7]), draw.choice([None, "n"])
        )
        group.append(
            RunWrite(
                draw.choice(RUN_IDS),
                metrics=metrics,
                params=params,
                update=update if draw.random() < 0.2 else None,
                is_batch=True,
            )
        )
    return group


def write(database: Database, remembered: RememberedRuns, group: list[RunWrite], *, cut: bool) -> list[str]:
    """Write a group as the writer does, or be cut off before the commit; what became of each request."""
    said: list[str] = []
    remembered.begin()
    with suppress(_PowerCutError):
        with database.writing(NOW_MS) as transaction:
            said = [str(result) for result in apply_run_writes(transaction, group, remembered)]
            if cut:
                raise _PowerCutError
        remembered.committed()
    return said


def touch(database: Database, draw: random.Random) -> None:
    """Change something beside the writer's own kinds of write: a run's stage, or its experiment's."""
    run_id, stage = draw.choice(RUN_IDS), draw.choice([LifecycleStage.ACTIVE, LifecycleStage.DELETED])
    of_experiment = draw.random() < 0.3
    with database.writing(NOW_MS) as transaction:
        if of_experiment:
            experiments.set_lifecycle_stage(transaction, 0, stage)
            return
        run_pk, lane_id = transaction.rows(
            "SELECT run_pk, data_lane_id FROM runs WHERE run_id = ?", (run_id,)
        )[0]
        runs.set_lifecycle_stage(transaction, [run_pk], stage, NOW_MS)
        operation = DeleteRun() if stage is LifecycleStage.DELETED else RestoreRun()
        append_entry(transaction, lane_id, operation, principal=None)


def held(database: Database) -> dict[str, Any]:
    """All that the store holds of runs, series and points, and the journal of them."""
    with database.reading() as transaction:
        lanes = transaction.rows(
            "SELECT lane_id, last_position, undelivered_bytes FROM lanes ORDER BY lane_id"
        )
        series = transaction.rows("SELECT * FROM series ORDER BY series_id")
        points = transaction.rows(
            "SELECT * FROM points ORDER BY series_id, step, timestamp_ms, value, is_nan"
        )
        info = transaction.rows(f"SELECT {runs.INFO} FROM runs ORDER BY run_pk")
        journal = {lane_id: read_points(transaction, lane_id, 1, last) for lane_id, last, _ in lanes}
    return {"lanes": lanes, "runs": info, "series": series, "points": points, "journal": journal}


@pytest.mark.parametrize("seed", range(4))
def test_as_if_nothing_were_remembered(seed: int, stores: list[Database]) -> None:
    """Whoever writes, whatever is lost before its commit: each point is held, counted and journaled once."""
    draw = random.Random(seed)
    *replicas, plain = stores
    memories = [RememberedRuns(most_series=draw.choice([4, 100])) for _ in replicas]
    remembered = 0
    for _ in range(GROUPS):
        number = draw.randrange(REPLICAS)
        group, cut = draw_group(draw), draw.random() < 0.15
        remembered += len(memories[number])
        said = write(replicas[number], memories[number], group, cut=cut)
        assert said == write(plain, RememberedRuns(), group, cut=cut)
        if draw.random() < 0.2:
            how = draw.random()
            for database in (replicas[number], plain):
                touch(database, random.Random(how))
    assert remembered > GROUPS
    found = held(replicas[0])
    assert found == held(plain)
    assert sum(row[3] for row in found["series"]) == len(found["points"]) > 50
