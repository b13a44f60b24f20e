"""Telling webhooks: rows in the outbox of everyone who listens.

Inside of the transaction that makes the change, so that both are committed or neither. Where nobody
listens it costs one look-up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from server.database.engine import Transaction
from server.domain.entities import RunInfo
from server.protocol.webhooks import delivery_body
from server.store import webhooks

log = structlog.get_logger(__name__)


def announce(transaction: Transaction, event: str, data: Mapping[str, Any]) -> None:
    """Put an event into the outbox of every webhook that is told about it."""
    listeners = webhooks.list_listeners(transaction, [event]).get(event)
    if listeners:
        _enqueue(transaction, event, data, listeners)


def announce_runs(transaction: Transaction, happened: Sequence[tuple[str, RunInfo]]) -> None:
    """Tell what has happened to runs (`created`, `finished`, …), each as it is now."""
    listeners = webhooks.list_listeners(transaction, sorted({f"run.{action}" for action, _ in happened}))
    for action, run in happened:
        event = f"run.{action}"
        if event in listeners:
            _enqueue(transaction, event, _run_data(run), listeners[event])


def _enqueue(transaction: Transaction, event: str, data: Mapping[str, Any], listeners: Sequence[int]) -> None:
    body = delivery_body(event, data, transaction.now_ms)
    full = webhooks.enqueue(transaction, listeners, event, body)
    if full:
        log.error("webhook_outbox_full", webhooks=full, about=event)


def _run_data(run: RunInfo) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run_name": run.name,
        "experiment_id": str(run.experiment_id),
        "user_id": run.user_id,
        "status": run.status.value,
        "start_time": run.start_time_ms,
        "end_time": run.end_time_ms,
    }
