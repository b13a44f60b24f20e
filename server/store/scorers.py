"""Scorers and their versions."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import uuid4

from server.database.engine import Transaction

_VERSION = (
    "SELECT scorers.scorer_pk, scorers.scorer_id, scorers.experiment_id, scorers.name,"
    " scorer_versions.version, scorer_versions.serialized_scorer, scorer_versions.creation_time_ms"
    " FROM scorers JOIN scorer_versions ON scorer_versions.scorer_pk = scorers.scorer_pk"
)


@dataclass(frozen=True, slots=True)
class ScorerVersion:
    """One version of a scorer."""

    scorer_pk: int
    scorer_id: str
    experiment_id: int
    name: str
    version: int
    serialized_scorer: str
    creation_time_ms: int


def find(transaction: Transaction, experiment_id: int, name: str) -> int | None:
    """The scorer with this name in an experiment, whether or not it has versions."""
    rows = transaction.rows(
        "SELECT scorer_pk FROM scorers WHERE experiment_id = ? AND name = ?", (experiment_id, name)
    )
    return rows[0][0] if rows else None


def insert(transaction: Transaction, experiment_id: int, name: str) -> int:
    """Store a new scorer without versions; its scorer_pk."""
    rows = transaction.rows(
        "INSERT INTO scorers (scorer_id, experiment_id, name) VALUES (?, ?, ?) RETURNING scorer_pk",
        (str(uuid4()), experiment_id, name),
    )
    return int(rows[0][0])


def insert_version(
    transaction: Transaction, scorer_pk: int, serialized_scorer: str, *, principal: str | None
) -> ScorerVersion:
    """Store the version after the highest there is."""
    rows = transaction.rows(
        "SELECT COALESCE(MAX(version), 0) + 1 FROM scorer_versions WHERE scorer_pk = ?", (scorer_pk,)
    )
    version = int(rows[0][0])
    transaction.run(
        "INSERT INTO scorer_versions (scorer_pk, version, serialized_scorer, creation_time_ms, principal)"
        " VALUES (?, ?, ?, ?, ?)",
        (scorer_pk, version, serialized_scorer, transaction.now_ms, principal),
    )
    return list_versions(transaction, scorer_pk)[-1]


def list_versions(transaction: Transaction, scorer_pk: int) -> list[ScorerVersion]:
    """The versions of a scorer, the oldest first."""
    rows = transaction.rows(
        f"{_VERSION} WHERE scorers.scorer_pk = ? ORDER BY scorer_versions.version", (scorer_pk,)
    )
    return [ScorerVersion(*row) for row in rows]


def find_version(transaction: Transaction, scorer_pk: int, version: int | None) -> ScorerVersion | None:
    """One version of a scorer, or its latest."""
    condition, values = ("", ()) if version is None else (" AND scorer_versions.version = ?", (version,))
    rows = transaction.rows(
        f"{_VERSION} WHERE scorers.scorer_pk = ?{condition} ORDER BY scorer_versions.version DESC LIMIT 1",
        (scorer_pk, *values),
    )
    return ScorerVersion(*rows[0]) if rows else None


def list_latest(transaction: Transaction, experiment_ids: Iterable[int]) -> list[ScorerVersion]:
    """The latest version of every scorer of these experiments, by experiment and name."""
    rows = transaction.rows_in(
        f"{_VERSION} WHERE scorer_versions.version = (SELECT MAX(other.version) FROM scorer_versions AS other"
        " WHERE other.scorer_pk = scorers.scorer_pk) AND scorers.experiment_id",
        experiment_ids,
    )
    found = [ScorerVersion(*row) for row in rows]
    return sorted(found, key=lambda version: (version.experiment_id, version.name))


def delete_version(transaction: Transaction, scorer_pk: int, version: int) -> bool:
    """Delete one version; whether it was there."""
    sql = "DELETE FROM scorer_versions WHERE scorer_pk = ? AND version = ?"
    return transaction.run(sql, (scorer_pk, version)) > 0


def delete(transaction: Transaction, scorer_pk: int) -> bool:
    """Delete a scorer with all its versions; whether it had any."""
    had_versions = transaction.run("DELETE FROM scorer_versions WHERE scorer_pk = ?", (scorer_pk,)) > 0
    transaction.run("DELETE FROM scorers WHERE scorer_pk = ?", (scorer_pk,))
    return had_versions


def list_active_experiments(transaction: Transaction, among: Iterable[int] | None) -> list[int]:
    """The experiments that are not deleted: all that have scorers, or those of `among`."""
    if among is None:
        rows = transaction.rows(
            "SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active' AND experiment_id IN"
            " (SELECT experiment_id FROM scorers)"
        )
    else:
        rows = transaction.rows_in(
            "SELECT experiment_id FROM experiments WHERE lifecycle_stage = 'active' AND experiment_id", among
        )
    return [row[0] for row in rows]
