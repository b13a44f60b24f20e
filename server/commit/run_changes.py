"""What a group of writes to runs changes: collected while it is decided, written with one statement each."""

from dataclasses import dataclass, field

from server.commit.run_requests import ModelMetric
from server.commit.run_state import GroupState
from server.database.engine import Transaction
from server.database.together import Change, Row, Together, insert
from server.domain.entities import Point, PointKey, RunInfo
from server.journal.blocks import INSERT_BLOCK, Stretches, pack
from server.journal.entries import Appends
from server.store import metrics as metric_rows
from server.store.announcements import announce_runs
from server.store.metrics import SeriesState

_KEY_AND_VALUE = {"run_pk": "BIGINT", "key": "TEXT", "value": "TEXT"}
_INSERT_PARAM = insert("params", _KEY_AND_VALUE)
_UPSERT_TAG = insert("tags", _KEY_AND_VALUE, "ON CONFLICT (run_pk, key) DO UPDATE SET value = excluded.value")
_DELETE_TAG = Together(
    "DELETE FROM tags WHERE run_pk = ? AND key = ?",
    "DELETE FROM tags USING {given} WHERE run_pk = column1 AND key = column2",
    ("BIGINT", "TEXT"),
)
_UPDATE_RUN = Together(
    "UPDATE runs SET name = ?, status = ?, end_time_ms = ? WHERE run_pk = ?",
    "UPDATE runs SET name = column1, status = column2, end_time_ms = column3"
    " FROM {given} WHERE run_pk = column4",
    ("TEXT", "TEXT", "BIGINT", "BIGINT"),
)


@dataclass(slots=True)
class GroupChanges:
    """The rows the group will write."""

    journal: Appends
    params: list[tuple[int, str, str]] = field(default_factory=list)
    tags: dict[tuple[int, str], str | None] = field(default_factory=dict)
    points: Stretches[tuple[SeriesState, Point]] = field(default_factory=Stretches)
    model_metrics: list[tuple[int, ModelMetric]] = field(default_factory=list)
    ended: list[tuple[str, RunInfo]] = field(default_factory=list)


def write_changes(transaction: Transaction, state: GroupState, changes: GroupChanges) -> None:
    """Write what the group has changed."""
    series = list({id(one): one for _, stretch in changes.points for one, _ in stretch.points}.values())
    stored = [one for one in series if one.series_id]
    metric_rows.insert_new(transaction, series)
    runs = {run.run_pk: run.info for run in state.runs.values() if run.changed}.values()
    transaction.run_all(
        [
            (_INSERT_PARAM, changes.params),
            *_tag_changes(changes),
            (_UPDATE_RUN, [(info.name, info.status.value, info.end_time_ms, info.run_pk) for info in runs]),
            metric_rows.update(stored),
            *_point_changes(changes, transaction.now_ms),
            *changes.journal.changes(),
        ]
    )
    if changes.model_metrics:
        metric_rows.insert_model_metrics(
            transaction,
            [
                (item.model_id, item.metric, run_pk, item.dataset_name, item.dataset_digest)
                for run_pk, item in changes.model_metrics
            ],
        )
    if changes.ended:
        announce_runs(transaction, changes.ended)


def _tag_changes(changes: GroupChanges) -> list[Change]:
    kept = [(run_pk, key, value) for (run_pk, key), value in changes.tags.items() if value is not None]
    gone = [(run_pk, key) for (run_pk, key), value in changes.tags.items() if value is None]
    return [(_UPSERT_TAG, kept), (_DELETE_TAG, gone)]


def _point_changes(changes: GroupChanges, now_ms: int) -> list[Change]:
    rows: list[PointKey] = []
    blocks: list[Row] = []
    for lane_id, stretch in changes.points:
        points: list[PointKey] = [(series.series_id, *point) for series, point in stretch.points]
        rows += points
        blocks += pack(lane_id, stretch.first, points, accepted_at_ms=now_ms)
    return [metric_rows.insert_points(rows), (INSERT_BLOCK, blocks)]
