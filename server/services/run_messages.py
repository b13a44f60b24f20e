"""Runs as messages: everything a run holds, read for a whole page at once."""

from collections.abc import Iterator, Sequence
from typing import Any

from server.database.engine import Transaction
from server.domain.entities import RunInfo
from server.protocol import runs as messages
from server.protocol.experiments import TagMessage
from server.store import datasets, run_data

# SQLite is asked inside this process, and rows that are soon used and gone stay in the processor's cache: 25
# runs at a time take a fifth less of its time than 1,000, and a fraction of the memory.
_SLICE = 25
# Each slice is five exchanges with Postgres.
_SLICE_OVER_A_WIRE = 250


def each_run(transaction: Transaction, infos: Sequence[RunInfo]) -> Iterator[messages.RunMessage]:
    """The runs with all they hold, a few in memory at a time. For use in the transaction."""
    size = _SLICE_OVER_A_WIRE if transaction.is_postgres else _SLICE
    for start in range(0, len(infos), size):
        yield from load_runs(transaction, infos[start : start + size])


def load_runs(transaction: Transaction, infos: Sequence[RunInfo]) -> list[messages.RunMessage]:
    """The runs with all they hold, in as many statements as there are kinds of data."""
    run_pks = sorted(info.run_pk for info in infos)
    latest = run_data.list_metrics(transaction, run_pks)
    params = run_data.list_params(transaction, run_pks)
    tags = run_data.list_tags(transaction, run_pks)
    inputs = datasets.list_inputs(transaction, run_pks)
    models = datasets.list_models(transaction, run_pks)
    return [
        messages.RunMessage(
            messages.run_info_message(info),
            messages.RunDataMessage(
                _metrics(latest.get(info.run_pk, ())),
                _tags(params.get(info.run_pk, ())),
                _tags(tags.get(info.run_pk, ())),
            ),
            messages.RunInputsMessage(
                [_dataset_message(item) for item in inputs.get(info.run_pk, ())],
                [
                    messages.ModelInputMessage(model_id)
                    for model_id, _ in models.get((info.run_pk, "input"), ())
                ],
            ),
            _outputs(models.get((info.run_pk, "output"), ())),
        )
        for info in infos
    ]


def _metrics(rows: Sequence[tuple[Any, ...]]) -> list[messages.MetricAnswer]:
    return [
        messages.MetricAnswer(key, "NaN" if value is None else value, timestamp_ms, step)
        for _, key, value, timestamp_ms, step in rows
    ]


def _tags(rows: Sequence[tuple[Any, ...]]) -> list[TagMessage]:
    return [TagMessage(key, value) for _, key, value in rows]


def _outputs(models: Sequence[tuple[str, int]]) -> messages.RunOutputsMessage:
    return messages.RunOutputsMessage([messages.ModelOutputMessage(*model) for model in models])


def _dataset_message(item: datasets.DatasetInput) -> messages.DatasetInputMessage:
    return messages.DatasetInputMessage(
        [TagMessage(key, value) for key, value in item.tags],
        messages.DatasetMessage(
            item.name, item.digest, item.source_type, item.source, item.schema, item.profile
        ),
    )
