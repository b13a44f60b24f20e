"""A migration holds as a whole or not at all, however it ends, and takes a bounded time.

`MLPROXY_TEST_LARGE=1` has a million points pending; otherwise a fifth of that, under a bound as strict.
"""

import os
import time
from pathlib import Path

import pytest

from server.database.engine import Database
from server.database.migration import HEAD, current_revision, migrate
from server.journal.points import read_points
from tests.compatibility.kept import JOURNALS, KeptJournal
from tests.durability.conftest import drain
from tests.durability.crashing import KILLED, end_leases
from tests.durability.tracking import assert_delivered
from tests.support.databases import MakeDatabase
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess

POINTS = 1_000_000 if os.environ.get("MLPROXY_TEST_LARGE") == "1" else 200_000
SECONDS_PER_MILLION = 60.0
MOST_STATEMENTS = 200
UNDELIVERED = KeptJournal(JOURNALS / "0001-undelivered")
UNCERTAIN = KeptJournal(JOURNALS / "0001-uncertain")


def put_back(
    journal: KeptJournal, kind: str, folder: Path, make_database: MakeDatabase, emulator: EmulatorProcess
) -> str:
    """The URL of a database that holds the journal, and nothing of later schemas."""
    data_dir = folder / "data"
    data_dir.mkdir()
    url = f"sqlite:///{data_dir / 'mlproxy.db'}" if kind == "sqlite" else make_database(kind)
    journal.restore(url, data_dir, emulator)
    return url


@pytest.mark.fault("1", "17")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_killed_after_every_statement(
    kind: str, tmp_path: Path, make_database: MakeDatabase, nursery: Nursery
) -> None:
    """However far a killed migration got, the schema is the old one, and the next migration succeeds."""
    journal = UNDELIVERED
    with EmulatorProcess.start(tmp_path / "emulator") as emulator:
        url = put_back(journal, kind, tmp_path, make_database, emulator)
        server = ServerProcess.prepare(
            tmp_path / "data",
            nursery=nursery,
            MLPROXY_DATABASE_URL=None if kind == "sqlite" else url,
            MLPROXY_WORKSPACE=emulator.tracking_uri,
            MLPROXY_CREDENTIAL="managed-identity",
            **emulator.environment(),
        )
        database = Database(url)
        for number in range(1, MOST_STATEMENTS):
            code = migrate_in_process(server, nursery, f"migration.statement=kill@{number}")
            if code == 0:
                break
            assert code == KILLED
            assert current_revision(database) == journal.revision
        assert number > 10
        assert current_revision(database) == HEAD
        database.close()
        if kind == "postgres":
            end_leases(url)
        with server:
            server.launch()
            assert drain(server) == 0
            for run in journal.runs:
                assert_delivered(emulator, run)


def migrate_in_process(server: ServerProcess, nursery: Nursery, failpoints: str) -> int:
    """Run `mlproxy migrate`; its exit code."""
    env = server.environment() | {"MLPROXY_TEST_FAILPOINTS": failpoints}
    return nursery.start(["migrate"], cwd=server.data_dir, env=env, log_file=server.log_file).wait(240)


@pytest.mark.fault("17")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_with_many_points_pending(kind: str, tmp_path: Path, make_database: MakeDatabase) -> None:
    """A backlog of a million points is brought up to date within a minute, and none of it is lost.

    A machine that is busy needs longer, for the writing of these points as well.
    """
    with EmulatorProcess.start(tmp_path / "emulator") as emulator:
        url = put_back(UNCERTAIN, kind, tmp_path, make_database, emulator)
    database = Database(url)
    started = time.monotonic()
    lane_id, before = add_points(database, POINTS)
    written = time.monotonic() - started
    started = time.monotonic()
    assert migrate(database) == HEAD
    seconds = time.monotonic() - started
    with database.reading() as transaction:
        after = read_points(transaction, lane_id, before[0][0], before[-1][0])
    database.close()
    print(f"{kind}: {POINTS} pending points in {seconds:.1f} s; it took {written:.1f} s to write them")
    assert [(point.position, point.step, point.value, point.fault) for point in after] == before
    assert seconds < max(SECONDS_PER_MILLION * POINTS / 1_000_000, 4 * written)


@pytest.mark.fault("4", "17")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_damaged_point_is_still_known_as_such(
    kind: str, tmp_path: Path, make_database: MakeDatabase
) -> None:
    """Points that were damaged before a migration are not taken for whole after it; those around are."""
    with EmulatorProcess.start(tmp_path / "emulator") as emulator:
        url = put_back(UNCERTAIN, kind, tmp_path, make_database, emulator)
    database = Database(url)
    lane_id, before = add_points(database, 100)
    damaged = before[10][0], before[70][0]
    with database.writing(0) as transaction:
        at = "WHERE lane_id = ? AND position = ?"
        step = "step + 1" if transaction.is_postgres else "'no number'"
        transaction.run(f"UPDATE journal_points SET value = value + 1 {at}", (lane_id, damaged[0]))
        transaction.run(f"UPDATE journal_points SET step = {step} {at}", (lane_id, damaged[1]))
    assert migrate(database) == HEAD
    with database.reading() as transaction:
        after = read_points(transaction, lane_id, before[0][0], before[-1][0])
    database.close()
    assert [point.position for point in after if point.fault is not None] == [*damaged]
    whole = [(point.position, point.step, point.value, point.fault) for point in after if point.fault is None]
    assert whole == [row for row in before if row[0] not in damaged]


def add_points(database: Database, count: int) -> tuple[int, list[tuple[int, int, float, None]]]:
    """Give a lane of schema 0001 more points of a metric; the lane, and (position, step, value, no fault)."""
    with database.writing(0) as transaction:
        lane_id, last, series_id = transaction.rows(
            "SELECT lanes.lane_id, lanes.last_position, journal_points.series_id FROM lanes"
            " JOIN journal_points ON journal_points.lane_id = lanes.lane_id LIMIT 1"
        )[0]
        steps = range(1, count + 1)
        transaction.run_many(
            "INSERT INTO points (series_id, step, timestamp_ms, value, is_nan) VALUES (?, ?, ?, ?, 0)",
            [(series_id, 100 + step, step, step / 7) for step in steps],
        )
        transaction.run_many(
            "INSERT INTO journal_points (lane_id, position, series_id, step, timestamp_ms, value, is_nan,"
            " accepted_at_ms) VALUES (?, ?, ?, ?, ?, ?, 0, 1)",
            [(lane_id, last + step, series_id, 100 + step, step, step / 7) for step in steps],
        )
        transaction.run("UPDATE lanes SET last_position = ? WHERE lane_id = ?", (last + count, lane_id))
    return lane_id, [(last + step, 100 + step, step / 7, None) for step in steps]
