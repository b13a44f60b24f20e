"""Experiments and their tags."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.domain.entities import Experiment, KeyValue, LifecycleStage

_COLUMNS = "experiment_id, name, artifact_location, lifecycle_stage, creation_time_ms, last_update_time_ms"


def get_many(transaction: Transaction, experiment_ids: Sequence[int]) -> list[Experiment]:
    """The experiments with these ids that exist, in the order of the ids."""
    rows = transaction.rows_in(f"SELECT {_COLUMNS} FROM experiments WHERE experiment_id", experiment_ids)
    tags: dict[int, list[KeyValue]] = {}
    for experiment_id, key, value in transaction.rows_in(
        "SELECT experiment_id, key, value FROM experiment_tags WHERE experiment_id", experiment_ids
    ):
        tags.setdefault(experiment_id, []).append(KeyValue(key, value))
    found = {
        row[0]: Experiment(
            row[0], row[1], row[2], LifecycleStage(row[3]), row[4], row[5], tags.get(row[0], [])
        )
        for row in rows
    }
    return [found[id_] for id_ in experiment_ids if id_ in found]


def find(transaction: Transaction, experiment_id: int) -> Experiment | None:
    """One experiment."""
    found = get_many(transaction, [experiment_id])
    return found[0] if found else None


def find_id_by_name(transaction: Transaction, name: str) -> int | None:
    """The id of the experiment that has this name, deleted or not."""
    rows = transaction.rows("SELECT experiment_id FROM experiments WHERE name = ?", (name,))
    return rows[0][0] if rows else None


def find_id_by_upstream_id(transaction: Transaction, upstream_id: str) -> int | None:
    """The id of the experiment that the workspace knows by this id."""
    rows = transaction.rows("SELECT experiment_id FROM experiments WHERE upstream_id = ?", (upstream_id,))
    return rows[0][0] if rows else None


def lane_of(transaction: Transaction, experiment_id: int) -> int:
    """The experiment's lane."""
    return int(
        transaction.rows("SELECT lane_id FROM experiments WHERE experiment_id = ?", (experiment_id,))[0][0]
    )


@dataclass(frozen=True, slots=True)
class Home:
    """What a new run needs to know of its experiment. `announced` and `settled` are positions of its lane."""

    experiment_id: int
    artifact_location: str
    lifecycle_stage: LifecycleStage
    lane_id: int
    announced: int
    settled: int


def list_homes(transaction: Transaction, experiment_ids: Iterable[int]) -> dict[int, Home]:
    """The experiments with these ids that exist."""
    rows = transaction.rows_in(
        "SELECT experiments.experiment_id, experiments.artifact_location, experiments.lifecycle_stage,"
        " lanes.lane_id, lanes.last_position, lanes.settled_position FROM experiments"
        " JOIN lanes ON lanes.lane_id = experiments.lane_id WHERE experiments.experiment_id",
        experiment_ids,
    )
    return {row[0]: Home(row[0], row[1], LifecycleStage(row[2]), *row[3:]) for row in rows}


def upstream_name_is_taken(transaction: Transaction, name: str) -> bool:
    """Whether an experiment here is already delivered, or to be delivered, under this name."""
    return bool(transaction.rows("SELECT 1 FROM experiments WHERE upstream_name = ?", (name,)))


def insert(
    transaction: Transaction,
    *,
    name: str,
    upstream_name: str,
    artifact_location: str | None,
    principal: str | None,
    lane_id: int,
    experiment_id: int | None = None,
) -> int:
    """Store a new experiment; its id. Without a location it gets one of its own under the proxy."""
    columns = (
        "name, artifact_location, lifecycle_stage, creation_time_ms, last_update_time_ms, born,"
        " upstream_name, principal, lane_id"
    )
    values = [
        name,
        artifact_location or "",
        LifecycleStage.ACTIVE.value,
        transaction.now_ms,
        transaction.now_ms,
        "proxy",
        upstream_name,
        principal,
        lane_id,
    ]
    if experiment_id is not None:
        columns += ", experiment_id"
        values.append(experiment_id)
    marks = ",".join("?" * len(values))
    new_id = int(
        transaction.rows(
            f"INSERT INTO experiments ({columns}) VALUES ({marks}) RETURNING experiment_id", values
        )[0][0]
    )
    if not artifact_location:
        transaction.run(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (f"mlflow-artifacts:/{new_id}", new_id),
        )
    transaction.run("UPDATE lanes SET subject_id = ? WHERE lane_id = ?", (new_id, lane_id))
    return new_id


def set_name(transaction: Transaction, experiment_id: int, name: str) -> None:
    """Rename."""
    transaction.run(
        "UPDATE experiments SET name = ?, last_update_time_ms = ? WHERE experiment_id = ?",
        (name, transaction.now_ms, experiment_id),
    )


def set_lifecycle_stage(transaction: Transaction, experiment_id: int, stage: LifecycleStage) -> None:
    """Delete or restore, softly, with the runs that are not deleted by themselves (`store.runs`).

    The moment is later than any before, whatever the clock says: runs refer to it.
    """
    transaction.run(
        "UPDATE experiments SET lifecycle_stage = ?, last_update_time_ms ="
        " CASE WHEN last_update_time_ms < ? THEN ? ELSE last_update_time_ms + 1 END WHERE experiment_id = ?",
        (stage.value, transaction.now_ms, transaction.now_ms, experiment_id),
    )


def set_tags(transaction: Transaction, experiment_id: int, tags: Sequence[tuple[str, str]]) -> None:
    """Set tags, over what they were."""
    transaction.run_many(
        "INSERT INTO experiment_tags (experiment_id, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (experiment_id, key) DO UPDATE SET value = excluded.value",
        [(experiment_id, key, value) for key, value in tags],
    )
    transaction.run(
        "UPDATE experiments SET last_update_time_ms = ? WHERE experiment_id = ?",
        (transaction.now_ms, experiment_id),
    )


def delete_tag(transaction: Transaction, experiment_id: int, key: str) -> bool:
    """Delete a tag; whether it was there."""
    return (
        transaction.run(
            "DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?", (experiment_id, key)
        )
        > 0
    )
