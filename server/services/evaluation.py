"""Evaluation datasets. The workspace has nothing of the kind, so they are kept here and never delivered.

Two records with the same inputs are one record: the later one is merged into the earlier.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import does_not_exist, invalid_parameter
from server.protocol import evaluation as messages
from server.protocol import limits, paging
from server.protocol.search import evaluation as grammar
from server.services.identity import get_experiment, resolve_experiment_id
from server.store import evaluation
from server.store.evaluation import EvaluationDataset, Record
from server.store.search.evaluation import find_evaluation_datasets

T = TypeVar("T")

_DEFAULT_PAGE = 1000
_LARGEST_PAGE = 50_000
_SCHEMA_VERSION = "1.0"


class EvaluationDatasets:
    """What can be done with evaluation datasets."""

    def __init__(self, *, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def create(
        self, request: messages.CreateDatasetRequest, principal: str | None
    ) -> messages.DatasetMessage:
        """Make an empty dataset. Names may repeat: the id tells datasets apart."""
        name = messages.parse_name(request.name)
        tags = {key: value or "" for key, value in messages.parse_tags(request.tags).items()}

        def apply(transaction: Transaction) -> messages.DatasetMessage:
            experiment_ids = _experiment_ids(transaction, request.experiment_ids)
            dataset = evaluation.insert(
                transaction,
                name=name,
                digest=_digest(name, transaction.now_ms),
                created_by=tags.get(messages.USER_TAG),
                principal=principal,
            )
            evaluation.set_tags(transaction, dataset.dataset_pk, tags)
            evaluation.add_experiments(transaction, dataset.dataset_pk, experiment_ids)
            return _message(dataset, tags, [str(experiment_id) for experiment_id in experiment_ids])

        return await self._writer.commit(Work(apply, rows=1 + len(tags)))

    async def get(self, dataset_id: str) -> messages.DatasetMessage:
        """One dataset, without its records."""
        return await self._database.read(
            lambda transaction: _load(transaction, [_get(transaction, dataset_id)])[0]
        )

    async def delete(self, dataset_id: str) -> None:
        """Delete a dataset with its records, if it is there."""

        def apply(transaction: Transaction) -> None:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is not None:
                evaluation.delete(transaction, dataset.dataset_pk)

        await self._writer.commit(Work(apply))

    async def search(
        self, request: messages.SearchEvaluationDatasetsRequest
    ) -> tuple[list[messages.DatasetMessage], str | None]:
        """A page of datasets, and the token of the next one."""
        limit = limits.check_page_size(request.max_results, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE)
        offset = paging.decode_offset(request.page_token)
        filters = grammar.parse_evaluation_dataset_filter(request.filter_string)
        order = grammar.parse_evaluation_dataset_order(request.order_by)

        def find(transaction: Transaction) -> tuple[list[messages.DatasetMessage], str | None]:
            dataset_pks, has_more = find_evaluation_datasets(
                transaction.connection,
                experiment_ids=_experiment_ids(transaction, request.experiment_ids),
                filters=filters,
                order=order,
                offset=offset,
                limit=limit,
            )
            found = _load(transaction, evaluation.get_many(transaction, dataset_pks))
            return found, paging.encode_offset(offset + limit) if has_more else None

        return await self._database.read(find)

    # --- tags and experiments ---

    async def set_tags(self, dataset_id: str, text: str) -> None:
        """Set tags over what they were; a tag that is null stays as it was."""
        tags = {key: value for key, value in messages.parse_tags(text).items() if value is not None}

        def apply(transaction: Transaction) -> None:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is None:
                raise does_not_exist(f"Could not find evaluation dataset with ID {dataset_id}")
            evaluation.set_tags(transaction, dataset.dataset_pk, tags)

        await self._writer.commit(Work(apply, rows=len(tags)))

    async def delete_tag(self, dataset_id: str, key: str) -> None:
        """Delete a tag, if both it and the dataset are there."""

        def apply(transaction: Transaction) -> None:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is not None:
                evaluation.delete_tag(transaction, dataset.dataset_pk, key)

        await self._writer.commit(Work(apply))

    async def experiment_ids(self, dataset_id: str) -> list[str]:
        """The experiments that the dataset belongs to; none when it is not there."""

        def find(transaction: Transaction) -> list[str]:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is None:
                return []
            return [str(found) for found in evaluation.list_experiments(transaction, dataset.dataset_pk)]

        return await self._database.read(find)

    async def add_experiments(
        self, dataset_id: str, experiment_ids: Sequence[str]
    ) -> messages.DatasetMessage:
        """Add the dataset to experiments that exist."""

        def change(transaction: Transaction, dataset: EvaluationDataset) -> None:
            found = [get_experiment(transaction, text).experiment_id for text in experiment_ids]
            evaluation.add_experiments(transaction, dataset.dataset_pk, found)
            evaluation.touch(transaction, dataset.dataset_pk)

        return await self._change(dataset_id, change)

    async def remove_experiments(
        self, dataset_id: str, experiment_ids: Sequence[str]
    ) -> messages.DatasetMessage:
        """Take the dataset out of experiments; those it does not belong to change nothing."""

        def change(transaction: Transaction, dataset: EvaluationDataset) -> None:
            found = _experiment_ids(transaction, experiment_ids)
            if evaluation.remove_experiments(transaction, dataset.dataset_pk, found):
                evaluation.touch(transaction, dataset.dataset_pk)

        return await self._change(dataset_id, change)

    async def _change(
        self, dataset_id: str, change: Callable[[Transaction, EvaluationDataset], None]
    ) -> messages.DatasetMessage:
        def apply(transaction: Transaction) -> messages.DatasetMessage:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is None:
                raise does_not_exist(f"Dataset '{dataset_id}' not found")
            change(transaction, dataset)
            return _load(transaction, [_get(transaction, dataset_id)])[0]

        return await self._writer.commit(Work(apply))

    # --- records ---

    async def upsert_records(
        self, dataset_id: str, text: str, size_bytes: int
    ) -> messages.UpsertRecordsAnswer:
        """Add records, or merge them into those with the same inputs."""
        given = messages.parse_records(text)
        hashes = [_input_hash(fields) for fields in given]

        def apply(transaction: Transaction) -> messages.UpsertRecordsAnswer:
            dataset = _get(transaction, dataset_id)
            known = evaluation.find_records(transaction, dataset.dataset_pk, hashes)
            new: dict[str, Record] = {}
            changed: dict[str, Record] = {}
            for fields, input_hash in zip(given, hashes, strict=True):
                record = known.get(input_hash) or new.get(input_hash)
                if record is None:
                    new[input_hash] = _new_record(fields, input_hash, transaction.now_ms)
                    continue
                _merge(record, fields, transaction.now_ms)
                if input_hash in known:
                    changed[input_hash] = record
            evaluation.insert_records(transaction, dataset.dataset_pk, new.values())
            evaluation.update_records(transaction, changed.values())
            _note_records(transaction, dataset, given)
            return messages.UpsertRecordsAnswer(len(new), len(given) - len(new))

        return await self._writer.commit(Work(apply, size_bytes=size_bytes, rows=len(given) + 1))

    async def list_records(
        self, dataset_id: str, request: messages.ListRecordsRequest
    ) -> messages.RecordsAnswer:
        """A page of records, oldest first; none when the dataset is not there."""
        limit = limits.check_page_size(
            request.max_results or None, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE
        )
        after, offset = _record_position(request.page_token)

        def find(transaction: Transaction) -> messages.RecordsAnswer:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is None:
                return messages.RecordsAnswer("[]")
            found = evaluation.list_records(
                transaction, dataset.dataset_pk, after=after, offset=offset, limit=limit + 1
            )
            token = _record_token(found[limit - 1]) if len(found) > limit else None
            shown = [_record_dict(dataset_id, record) for record in found[:limit]]
            return messages.RecordsAnswer(json.dumps(shown), token)

        return await self._database.read(find)

    async def delete_records(self, dataset_id: str, record_ids: Sequence[str]) -> int:
        """Delete records; how many there were."""
        for record_id in record_ids:
            limits.check_text("dataset_record_ids", record_id)

        def apply(transaction: Transaction) -> int:
            dataset = evaluation.find(transaction, dataset_id)
            if dataset is None:
                return 0
            deleted = evaluation.delete_records(transaction, dataset.dataset_pk, record_ids)
            if deleted:
                left = evaluation.count_records(transaction, dataset.dataset_pk)
                evaluation.set_profile(transaction, dataset.dataset_pk, _profile(left))
            return deleted

        return await self._writer.commit(Work(apply, rows=len(record_ids) + 1))


# --- datasets -------------------------------------------------------------------------------


def _get(transaction: Transaction, dataset_id: str) -> EvaluationDataset:
    dataset = evaluation.find(transaction, dataset_id)
    if dataset is None:
        raise does_not_exist(f"Evaluation dataset with id '{dataset_id}' not found")
    return dataset


def _load(transaction: Transaction, datasets: Sequence[EvaluationDataset]) -> list[messages.DatasetMessage]:
    tags = evaluation.list_tags(transaction, [dataset.dataset_pk for dataset in datasets])
    return [_message(dataset, tags.get(dataset.dataset_pk, {})) for dataset in datasets]


def _message(
    dataset: EvaluationDataset, tags: dict[str, str], experiment_ids: Sequence[str] = ()
) -> messages.DatasetMessage:
    return messages.DatasetMessage(
        dataset_id=dataset.dataset_id,
        name=dataset.name,
        tags=json.dumps(tags, sort_keys=True),
        digest=dataset.digest,
        created_time=dataset.created_time_ms,
        last_update_time=dataset.last_update_time_ms,
        schema=dataset.schema,
        profile=dataset.profile,
        created_by=dataset.created_by,
        last_updated_by=dataset.last_updated_by,
        experiment_ids=list(experiment_ids),
    )


def _experiment_ids(transaction: Transaction, texts: Sequence[str]) -> list[int]:
    return list(dict.fromkeys(resolve_experiment_id(transaction, text) for text in texts))


def _digest(name: str, updated_ms: int) -> str:
    return hashlib.sha256(f"{name}:{updated_ms}".encode()).hexdigest()[:8]


def _profile(records: int) -> str | None:
    return json.dumps({"num_records": records}) if records else None


# --- records --------------------------------------------------------------------------------


def _input_hash(fields: messages.RecordFields) -> str:
    return hashlib.sha256(json.dumps(fields.inputs, sort_keys=True).encode()).hexdigest()


def _user(fields: messages.RecordFields) -> str | None:
    user = (fields.tags or {}).get(messages.USER_TAG)
    return None if user is None else str(user)


def _new_record(fields: messages.RecordFields, input_hash: str, now_ms: int) -> Record:
    # MLflow shows outputs that were never given as an empty object.
    outputs = {} if fields.outputs is msgspec.UNSET else fields.outputs
    return Record(
        record_id=f"dr-{uuid4().hex}",
        input_hash=input_hash,
        inputs=json.dumps(fields.inputs),
        outputs=_dump(outputs),
        expectations=_dump(fields.expectations),
        tags=_dump(fields.tags or {}),
        source=_dump(fields.source or None),
        created_time_ms=now_ms,
        last_update_time_ms=now_ms,
        created_by=_user(fields),
        last_updated_by=_user(fields),
    )


def _merge(record: Record, fields: messages.RecordFields, now_ms: int) -> None:
    """New outputs replace; expectations and tags are added over what was there."""
    if fields.outputs is not msgspec.UNSET:
        record.outputs = _dump(fields.outputs)
    if fields.expectations:
        record.expectations = json.dumps({**json.loads(record.expectations or "{}"), **fields.expectations})
    if fields.tags:
        record.tags = json.dumps({**json.loads(record.tags or "{}"), **fields.tags})
    record.last_update_time_ms = now_ms
    record.last_updated_by = _user(fields) or record.last_updated_by


def _note_records(
    transaction: Transaction, dataset: EvaluationDataset, given: Sequence[messages.RecordFields]
) -> None:
    users = [user for user in map(_user, given) if user is not None]
    evaluation.note_records(
        transaction,
        dataset.dataset_pk,
        digest=_digest(dataset.name, transaction.now_ms),
        schema=_grown_schema(dataset.schema, given),
        profile=_profile(evaluation.count_records(transaction, dataset.dataset_pk)) or dataset.profile,
        updated_by=users[-1] if users else None,
    )


def _grown_schema(known: str | None, given: Sequence[messages.RecordFields]) -> str | None:
    """The dataset's schema with the fields that these records bring; what is known keeps its type."""
    if not given:
        return known
    empty: dict[str, Any] = {"inputs": {}, "outputs": {}, "expectations": {}, "version": _SCHEMA_VERSION}
    schema = json.loads(known) if known else empty
    for fields in given:
        _add_types(schema["inputs"], fields.inputs)
        _add_types(schema["expectations"], fields.expectations or {})
        if fields.outputs is msgspec.UNSET or fields.outputs is None:
            continue
        if not isinstance(fields.outputs, dict):
            schema["outputs"] = schema["outputs"] or _type_name(fields.outputs)
        elif isinstance(schema["outputs"], dict):
            _add_types(schema["outputs"], fields.outputs)
    return json.dumps(schema)


def _add_types(types: dict[str, str], values: dict[str, Any]) -> None:
    for key, value in values.items():
        types.setdefault(key, _type_name(value))


def _type_name(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "float"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "unknown"


def _record_dict(dataset_id: str, record: Record) -> dict[str, Any]:
    """A record as clients read it; what is null is left out."""
    source = json.loads(record.source) if record.source else None
    shown: dict[str, Any] = {
        "dataset_record_id": record.record_id,
        "dataset_id": dataset_id,
        "inputs": json.loads(record.inputs),
        "outputs": _parse(record.outputs),
        "expectations": _parse(record.expectations),
        "tags": _parse(record.tags),
        "source": source,
        "source_id": _source_id(source),
        "source_type": source["source_type"] if source else None,
        "created_time": record.created_time_ms,
        "last_update_time": record.last_update_time_ms,
        "created_by": record.created_by,
        "last_updated_by": record.last_updated_by,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _source_id(source: dict[str, Any] | None) -> str | None:
    if source is None:
        return None
    key = "trace_id" if source["source_type"] == "TRACE" else "source_id"
    found = source["source_data"].get(key)
    return None if found is None else str(found)


def _dump(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _parse(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _record_token(record: Record) -> str:
    return base64.b64encode(f"{record.created_time_ms}:{record.record_id}".encode()).decode()


def _record_position(token: str | None) -> tuple[tuple[int, str] | None, int]:
    """Where a page of records starts: behind a record, or, as MLflow also takes it, at an offset."""
    if not token:
        return None, 0
    try:
        created, colon, record_id = base64.b64decode(token, validate=True).decode().partition(":")
        if colon:
            return (_position(int(created)), record_id), 0
    except (binascii.Error, ValueError):
        pass
    if token.isascii() and token.isdigit():
        return None, _position(int(token[:20]))
    raise invalid_parameter(f"Invalid page token, parsed value={token[:100]}")


def _position(number: int) -> int:
    if not 0 <= number <= limits.INT64_MAX:
        raise invalid_parameter(f"Invalid page token, parsed value={number}")
    return number
