"""Reading experiments whole, a page at a time, for a bundle."""

from dataclasses import dataclass

from server.database.engine import Transaction
from server.store.runs import STAGE

Point = tuple[int, int, float, int]
"""Step, timestamp, value, is_nan: a point's key within its series."""

BEFORE_ALL: Point = (-(2**63), -(2**63), float("-inf"), 0)


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file, and the URI of the folder that it lies in."""

    owner_id: str
    folder_uri: str
    path: str
    size_bytes: int
    md5: bytes


def list_active_run_pks(
    transaction: Transaction, experiment_id: int, *, after_run_pk: int, limit: int
) -> list[int]:
    """Runs that are not deleted, the oldest first: a parent comes before its children."""
    rows = transaction.rows(
        f"SELECT run_pk FROM runs WHERE experiment_id = ? AND run_pk > ? AND ({STAGE}) = 'active'"
        f" ORDER BY run_pk LIMIT {limit}",
        (experiment_id, after_run_pk),
    )
    return [row[0] for row in rows]


def list_series(transaction: Transaction, run_pk: int) -> list[tuple[int, str]]:
    """(series id, key) of a run's metrics."""
    rows = transaction.rows("SELECT series_id, key FROM series WHERE run_pk = ? ORDER BY key", (run_pk,))
    return [(row[0], row[1]) for row in rows]


def list_points(transaction: Transaction, series_id: int, *, after: Point, limit: int) -> list[Point]:
    """A page of a series' points, in the order of their key."""
    rows = transaction.rows(
        "SELECT step, timestamp_ms, value, is_nan FROM points WHERE series_id = ?"
        " AND (step, timestamp_ms, value, is_nan) > (?, ?, ?, ?)"
        f" ORDER BY step, timestamp_ms, value, is_nan LIMIT {limit}",
        (series_id, *after),
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def list_run_files(
    transaction: Transaction, run_pk: int, *, after_path: str | None, limit: int
) -> list[ExportedFile]:
    """A page of the files in a run's own folder."""
    return _files(
        transaction,
        "SELECT runs.run_id, runs.artifact_uri, path, size_bytes, md5 FROM runs"
        " JOIN artifact_roots ON artifact_roots.run_pk = runs.run_pk"
        " JOIN artifacts ON artifacts.root_id = artifact_roots.root_id WHERE runs.run_pk = ?",
        run_pk,
        after_path,
        limit,
    )


def list_model_files(
    transaction: Transaction, model_pk: int, *, after_path: str | None, limit: int
) -> list[ExportedFile]:
    """A page of the files in a logged model's own folder."""
    return _files(
        transaction,
        "SELECT logged_models.model_id, logged_models.artifact_uri, path, size_bytes, md5 FROM logged_models"
        " JOIN artifact_roots ON artifact_roots.model_pk = logged_models.model_pk"
        " JOIN artifacts ON artifacts.root_id = artifact_roots.root_id WHERE logged_models.model_pk = ?",
        model_pk,
        after_path,
        limit,
    )


def _files(
    transaction: Transaction, select: str, owner: int, after_path: str | None, limit: int
) -> list[ExportedFile]:
    parameters: list[object] = [owner]
    if after_path is not None:
        select += " AND path > ?"
        parameters.append(after_path)
    rows = transaction.rows(f"{select} ORDER BY path LIMIT {limit}", parameters)
    return [ExportedFile(row[0], row[1], row[2], row[3], bytes(row[4])) for row in rows]


def list_model_pks(transaction: Transaction, experiment_id: int) -> list[int]:
    """The logged models of an experiment that are not deleted."""
    rows = transaction.rows(
        "SELECT model_pk FROM logged_models WHERE experiment_id = ? AND lifecycle_stage = 'active'"
        " ORDER BY model_pk",
        (experiment_id,),
    )
    return [row[0] for row in rows]


def list_model_points(
    transaction: Transaction, model_id: str, *, offset: int, limit: int
) -> list[tuple[str, str, int, int, float, bool, str | None, str | None]]:
    """A page of a logged model's points: (run id, key, step, timestamp, value, is_nan, dataset, digest)."""
    rows = transaction.rows(
        "SELECT runs.run_id, key, step, timestamp_ms, value, is_nan, dataset_name, dataset_digest"
        " FROM logged_model_metrics JOIN runs ON runs.run_pk = logged_model_metrics.run_pk"
        " WHERE model_id = ? ORDER BY logged_model_metrics.run_pk, key, timestamp_ms, step"
        f" LIMIT {limit} OFFSET {offset}",
        (model_id,),
    )
    return [(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6], row[7]) for row in rows]
