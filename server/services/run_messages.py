"""Runs as messages: everything a run holds, read for a whole page at once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from server.database.engine import Transaction
from server.domain.entities import LifecycleStage, RunInfo
from server.protocol import runs as messages
from server.protocol.experiments import TagMessage
from server.protocol.wire import encode
from server.services.run_memory import RunMemory
from server.store import datasets, run_data, runs
from server.store.runs import VersionedRun

# SQLite is asked inside this process, and rows that are soon used and gone stay in the processor's cache: 25
# runs at a time take a fifth less of its time than 1,000, and a fraction of the memory.
_SLICE = 25
# Each slice is up to five exchanges with Postgres.
_SLICE_OVER_A_WIRE = 250


def each_encoded_run(
    transaction: Transaction, run_pks: Sequence[int], memory: RunMemory
) -> Iterator[messages.EncodedRunMessage]:
    """The runs with all they hold, a few in memory at a time. For use in the transaction, a reading one.

    What they hold is taken from the memory where it has it, and kept there where it has not. Datasets and
    logged models are always read: who notes them moves no version (`store.runs.RunVersion`).
    """
    found = runs.list_versioned(transaction, run_pks)
    size = _SLICE_OVER_A_WIRE if transaction.is_postgres else _SLICE
    for start in range(0, len(found), size):
        part = found[start : start + size]
        data = _encoded_data(transaction, part, memory)
        links = _read_links(transaction, sorted(run.info.run_pk for run in part if run.has_links))
        for run in part:
            run_pk = run.info.run_pk
            yield messages.EncodedRunMessage(
                messages.run_info_message(run.info),
                msgspec.Raw(data[run_pk]),
                links.inputs_of(run_pk),
                links.outputs_of(run_pk),
            )


def load_runs(transaction: Transaction, infos: Sequence[RunInfo]) -> list[messages.RunMessage]:
    """The runs with all they hold, in as many statements as there are kinds of data."""
    run_pks = sorted(info.run_pk for info in infos)
    data, links = _read_data(transaction, run_pks), _read_links(transaction, run_pks)
    return [
        messages.RunMessage(
            messages.run_info_message(info),
            data[info.run_pk],
            links.inputs_of(info.run_pk),
            links.outputs_of(info.run_pk),
        )
        for info in infos
    ]


# --- metrics, params and tags ---------------------------------------------------------------


def _encoded_data(
    transaction: Transaction, part: Iterable[VersionedRun], memory: RunMemory
) -> dict[int, bytes]:
    encoded: dict[int, bytes] = {}
    unknown: dict[int, VersionedRun] = {}
    for run in part:
        run_pk = run.info.run_pk
        kept = memory.find(run_pk, run.version) if _is_versioned(run) else None
        if kept is None:
            unknown[run_pk] = run
        else:
            encoded[run_pk] = kept
    for run_pk, message in _read_data(transaction, sorted(unknown)).items():
        encoded[run_pk] = encode(message)
        if _is_versioned(unknown[run_pk]):
            memory.keep(run_pk, unknown[run_pk].version, encoded[run_pk])
    return encoded


def _is_versioned(run: VersionedRun) -> bool:
    """Whether the version tells of every change: removing a deleted run's rows for good does not move it."""
    return run.info.lifecycle_stage is LifecycleStage.ACTIVE


def _read_data(transaction: Transaction, run_pks: Sequence[int]) -> dict[int, messages.RunDataMessage]:
    """The data of each of the runs."""
    latest = run_data.list_metrics(transaction, run_pks)
    params = run_data.list_params(transaction, run_pks)
    tags = run_data.list_tags(transaction, run_pks)
    return {
        run_pk: messages.RunDataMessage(
            _metrics(latest.get(run_pk, ())), _tags(params.get(run_pk, ())), _tags(tags.get(run_pk, ()))
        )
        for run_pk in run_pks
    }


def _metrics(rows: Sequence[tuple[Any, ...]]) -> list[messages.MetricAnswer]:
    return [
        messages.MetricAnswer(key, "NaN" if value is None else value, timestamp_ms, step)
        for _, key, value, timestamp_ms, step in rows
    ]


def _tags(rows: Sequence[tuple[Any, ...]]) -> list[TagMessage]:
    return [TagMessage(key, value) for _, key, value in rows]


# --- datasets and logged models -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Links:
    """What runs are linked to: datasets they used, models that went in or came out."""

    inputs: Mapping[int, Sequence[datasets.DatasetInput]]
    models: Mapping[tuple[int, str], Sequence[tuple[str, int]]]

    def inputs_of(self, run_pk: int) -> messages.RunInputsMessage:
        return messages.RunInputsMessage(
            [_dataset_message(item) for item in self.inputs.get(run_pk, ())],
            [messages.ModelInputMessage(model_id) for model_id, _ in self.models.get((run_pk, "input"), ())],
        )

    def outputs_of(self, run_pk: int) -> messages.RunOutputsMessage:
        models = self.models.get((run_pk, "output"), ())
        return messages.RunOutputsMessage([messages.ModelOutputMessage(*model) for model in models])


def _read_links(transaction: Transaction, run_pks: Sequence[int]) -> _Links:
    return _Links(datasets.list_inputs(transaction, run_pks), datasets.list_models(transaction, run_pks))


def _dataset_message(item: datasets.DatasetInput) -> messages.DatasetInputMessage:
    return messages.DatasetInputMessage(
        [TagMessage(key, value) for key, value in item.tags],
        messages.DatasetMessage(
            item.name, item.digest, item.source_type, item.source, item.schema, item.profile
        ),
    )
