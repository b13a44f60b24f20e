"""Evaluation datasets with their tags, experiments and records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from server.database.engine import Transaction

_DATASET = (
    "dataset_pk, dataset_id, name, digest, schema, profile, created_time_ms, last_update_time_ms,"
    " created_by, last_updated_by"
)
_RECORD = (
    "record_id, input_hash, inputs, outputs, expectations, tags, source, created_time_ms,"
    " last_update_time_ms, created_by, last_updated_by"
)


@dataclass(frozen=True, slots=True)
class EvaluationDataset:
    """A dataset without what belongs to it."""

    dataset_pk: int
    dataset_id: str
    name: str
    digest: str
    schema: str | None
    profile: str | None
    created_time_ms: int
    last_update_time_ms: int
    created_by: str | None
    last_updated_by: str | None


@dataclass(slots=True)
class Record:
    """One record; what is JSON is text. The hash of its inputs is its identity in the dataset."""

    record_id: str
    input_hash: str
    inputs: str
    outputs: str | None
    expectations: str | None
    tags: str | None
    source: str | None
    created_time_ms: int
    last_update_time_ms: int
    created_by: str | None
    last_updated_by: str | None


# --- datasets -------------------------------------------------------------------------------


def find(transaction: Transaction, dataset_id: str) -> EvaluationDataset | None:
    """The dataset with this id."""
    rows = transaction.rows(f"SELECT {_DATASET} FROM evaluation_datasets WHERE dataset_id = ?", (dataset_id,))
    return EvaluationDataset(*rows[0]) if rows else None


def get_many(transaction: Transaction, dataset_pks: Sequence[int]) -> list[EvaluationDataset]:
    """The datasets that exist, in the order asked for."""
    rows = transaction.rows_in(f"SELECT {_DATASET} FROM evaluation_datasets WHERE dataset_pk", dataset_pks)
    found = {row[0]: EvaluationDataset(*row) for row in rows}
    return [found[dataset_pk] for dataset_pk in dataset_pks if dataset_pk in found]


def insert(
    transaction: Transaction, *, name: str, digest: str, created_by: str | None, principal: str | None
) -> EvaluationDataset:
    """Store a new, empty dataset."""
    rows = transaction.rows(
        "INSERT INTO evaluation_datasets (dataset_id, name, digest, created_time_ms, last_update_time_ms,"
        f" created_by, last_updated_by, principal) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_DATASET}",
        (
            f"d-{uuid4().hex}",
            name,
            digest,
            transaction.now_ms,
            transaction.now_ms,
            created_by,
            created_by,
            principal,
        ),
    )
    return EvaluationDataset(*rows[0])


def note_records(
    transaction: Transaction,
    dataset_pk: int,
    *,
    digest: str,
    schema: str | None,
    profile: str | None,
    updated_by: str | None,
) -> None:
    """What the dataset is once its records have changed."""
    transaction.run(
        "UPDATE evaluation_datasets SET digest = ?, schema = ?, profile = ?, last_updated_by = ?,"
        " last_update_time_ms = ? WHERE dataset_pk = ?",
        (digest, schema, profile, updated_by, transaction.now_ms, dataset_pk),
    )


def set_profile(transaction: Transaction, dataset_pk: int, profile: str | None) -> None:
    """Change the profile, and nothing else."""
    transaction.run("UPDATE evaluation_datasets SET profile = ? WHERE dataset_pk = ?", (profile, dataset_pk))


def touch(transaction: Transaction, dataset_pk: int) -> None:
    """Note that something of the dataset has changed."""
    transaction.run(
        "UPDATE evaluation_datasets SET last_update_time_ms = ? WHERE dataset_pk = ?",
        (transaction.now_ms, dataset_pk),
    )


def delete(transaction: Transaction, dataset_pk: int) -> None:
    """Remove the dataset with all it has."""
    for table in (
        "evaluation_records",
        "evaluation_dataset_experiments",
        "evaluation_dataset_tags",
        "evaluation_datasets",
    ):
        transaction.run(f"DELETE FROM {table} WHERE dataset_pk = ?", (dataset_pk,))


# --- tags and experiments -------------------------------------------------------------------


def list_tags(transaction: Transaction, dataset_pks: Iterable[int]) -> dict[int, dict[str, str]]:
    """The tags of these datasets."""
    tags: dict[int, dict[str, str]] = {}
    for dataset_pk, key, value in transaction.rows_in(
        "SELECT dataset_pk, key, value FROM evaluation_dataset_tags WHERE dataset_pk",
        dataset_pks,
        suffix=" ORDER BY dataset_pk, key",
    ):
        tags.setdefault(dataset_pk, {})[key] = value
    return tags


def set_tags(transaction: Transaction, dataset_pk: int, tags: Mapping[str, str]) -> None:
    """Set tags, over what they were."""
    transaction.run_many(
        "INSERT INTO evaluation_dataset_tags (dataset_pk, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (dataset_pk, key) DO UPDATE SET value = excluded.value",
        [(dataset_pk, key, value) for key, value in tags.items()],
    )


def delete_tag(transaction: Transaction, dataset_pk: int, key: str) -> None:
    """Delete a tag, if it is there."""
    transaction.run("DELETE FROM evaluation_dataset_tags WHERE dataset_pk = ? AND key = ?", (dataset_pk, key))


def list_experiments(transaction: Transaction, dataset_pk: int) -> list[int]:
    """The experiments a dataset belongs to."""
    rows = transaction.rows(
        "SELECT experiment_id FROM evaluation_dataset_experiments WHERE dataset_pk = ?"
        " ORDER BY experiment_id",
        (dataset_pk,),
    )
    return [row[0] for row in rows]


def add_experiments(transaction: Transaction, dataset_pk: int, experiment_ids: Iterable[int]) -> None:
    """Add the dataset to experiments; what it belongs to already stays."""
    transaction.run_many(
        "INSERT INTO evaluation_dataset_experiments (dataset_pk, experiment_id) VALUES (?, ?)"
        " ON CONFLICT DO NOTHING",
        [(dataset_pk, experiment_id) for experiment_id in experiment_ids],
    )


def remove_experiments(transaction: Transaction, dataset_pk: int, experiment_ids: Iterable[int]) -> bool:
    """Take the dataset out of experiments; whether it was in any of them."""
    sql = "DELETE FROM evaluation_dataset_experiments WHERE dataset_pk = ? AND experiment_id = ?"
    removed = [
        transaction.run(sql, (dataset_pk, experiment_id)) for experiment_id in dict.fromkeys(experiment_ids)
    ]
    return any(removed)


# --- records --------------------------------------------------------------------------------


def find_records(transaction: Transaction, dataset_pk: int, input_hashes: Iterable[str]) -> dict[str, Record]:
    """The records of a dataset that have these inputs, by the hash."""
    rows = transaction.rows_in(
        f"SELECT {_RECORD} FROM evaluation_records WHERE dataset_pk = {int(dataset_pk)} AND input_hash",
        dict.fromkeys(input_hashes),
    )
    return {row[1]: Record(*row) for row in rows}


def list_records(
    transaction: Transaction, dataset_pk: int, *, after: tuple[int, str] | None, offset: int, limit: int
) -> list[Record]:
    """Records by time and id, those behind `after` (created_time_ms, record_id)."""
    condition, values = "", []
    if after is not None:
        condition = " AND (created_time_ms > ? OR (created_time_ms = ? AND record_id > ?))"
        values = [after[0], after[0], after[1]]
    rows = transaction.rows(
        f"SELECT {_RECORD} FROM evaluation_records WHERE dataset_pk = ?{condition}"
        " ORDER BY created_time_ms, record_id LIMIT ? OFFSET ?",
        (dataset_pk, *values, limit, offset),
    )
    return [Record(*row) for row in rows]


def insert_records(transaction: Transaction, dataset_pk: int, records: Iterable[Record]) -> None:
    """Store new records."""
    transaction.run_many(
        f"INSERT INTO evaluation_records (dataset_pk, {_RECORD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                dataset_pk,
                record.record_id,
                record.input_hash,
                record.inputs,
                record.outputs,
                record.expectations,
                record.tags,
                record.source,
                record.created_time_ms,
                record.last_update_time_ms,
                record.created_by,
                record.last_updated_by,
            )
            for record in records
        ],
    )


def update_records(transaction: Transaction, records: Iterable[Record]) -> None:
    """Store what has changed of records."""
    transaction.run_many(
        "UPDATE evaluation_records SET outputs = ?, expectations = ?, tags = ?, last_update_time_ms = ?,"
        " last_updated_by = ? WHERE record_id = ?",
        [
            (
                record.outputs,
                record.expectations,
                record.tags,
                record.last_update_time_ms,
                record.last_updated_by,
                record.record_id,
            )
            for record in records
        ],
    )


def delete_records(transaction: Transaction, dataset_pk: int, record_ids: Iterable[str]) -> int:
    """Delete records; how many there were."""
    sql = "DELETE FROM evaluation_records WHERE dataset_pk = ? AND record_id = ?"
    return sum(transaction.run(sql, (dataset_pk, record_id)) for record_id in dict.fromkeys(record_ids))


def count_records(transaction: Transaction, dataset_pk: int) -> int:
    """How many records a dataset has."""
    sql = "SELECT COUNT(*) FROM evaluation_records WHERE dataset_pk = ?"
    return int(transaction.rows(sql, (dataset_pk,))[0][0])
