"""Webhooks, and the outbox of what has still to be sent to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from server.database.engine import Transaction

ACTIVE = "ACTIVE"
# What one webhook may have waiting; beyond it, events are lost to that webhook alone.
MOST_WAITING = 10_000
_WEBHOOK = (
    "webhook_pk, webhook_id, name, url, description, status, secret, creation_timestamp_ms,"
    " last_updated_timestamp_ms"
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook without its events. The secret stays out of what is printed."""

    webhook_pk: int
    webhook_id: str
    name: str
    url: str
    description: str | None
    status: str
    secret: str | None = field(repr=False)
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook. `attempts` counts the one it was claimed for."""

    delivery_pk: int
    delivery_id: str
    event: str
    body: str
    attempts: int
    webhook: Webhook


# --- webhooks -------------------------------------------------------------------------------


def find(transaction: Transaction, webhook_id: str) -> Webhook | None:
    """The webhook with this id."""
    rows = transaction.rows(f"SELECT {_WEBHOOK} FROM webhooks WHERE webhook_id = ?", (webhook_id,))
    return Webhook(*rows[0]) if rows else None


def list_page(
    transaction: Transaction, *, told_about: Sequence[str], offset: int, limit: int
) -> list[Webhook]:
    """Webhooks that are told about one of these events at least, the newest first."""
    marks = ", ".join("?" * len(told_about))
    rows = transaction.rows(
        f"SELECT {_WEBHOOK} FROM webhooks WHERE EXISTS (SELECT 1 FROM webhook_events"
        f" WHERE webhook_events.webhook_pk = webhooks.webhook_pk AND webhook_events.event IN ({marks}))"
        " ORDER BY creation_timestamp_ms DESC, webhook_pk DESC LIMIT ? OFFSET ?",
        (*told_about, limit, offset),
    )
    return [Webhook(*row) for row in rows]


def insert(
    transaction: Transaction,
    *,
    name: str,
    url: str,
    description: str | None,
    status: str,
    secret: str | None,
    principal: str | None,
) -> Webhook:
    """Store a new webhook without events."""
    rows = transaction.rows(
        "INSERT INTO webhooks (webhook_id, name, url, description, status, secret, creation_timestamp_ms,"
        f" last_updated_timestamp_ms, principal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING {_WEBHOOK}",
        (
            str(uuid4()),
            name,
            url,
            description,
            status,
            secret,
            transaction.now_ms,
            transaction.now_ms,
            principal,
        ),
    )
    return Webhook(*rows[0])


def update(transaction: Transaction, webhook: Webhook) -> None:
    """Store what has changed of a webhook."""
    transaction.run(
        "UPDATE webhooks SET name = ?, url = ?, description = ?, status = ?, secret = ?,"
        " last_updated_timestamp_ms = ? WHERE webhook_pk = ?",
        (
            webhook.name,
            webhook.url,
            webhook.description,
            webhook.status,
            webhook.secret,
            transaction.now_ms,
            webhook.webhook_pk,
        ),
    )


def delete(transaction: Transaction, webhook_pk: int) -> None:
    """Remove a webhook with its secret and all that waits for it."""
    for table in ("webhook_deliveries", "webhook_events", "webhooks"):
        transaction.run(f"DELETE FROM {table} WHERE webhook_pk = ?", (webhook_pk,))


def set_events(transaction: Transaction, webhook_pk: int, events: Sequence[str]) -> None:
    """What the webhook is told about from now on."""
    transaction.run("DELETE FROM webhook_events WHERE webhook_pk = ?", (webhook_pk,))
    transaction.run_many(
        "INSERT INTO webhook_events (webhook_pk, position, event) VALUES (?, ?, ?)",
        [(webhook_pk, position, event) for position, event in enumerate(events)],
    )


def list_events(transaction: Transaction, webhook_pks: Sequence[int]) -> dict[int, list[str]]:
    """What these webhooks are told about."""
    events: dict[int, list[str]] = {}
    for webhook_pk, event in transaction.rows_in(
        "SELECT webhook_pk, event FROM webhook_events WHERE webhook_pk",
        webhook_pks,
        suffix=" ORDER BY webhook_pk, position",
    ):
        events.setdefault(webhook_pk, []).append(event)
    return events


# --- the outbox -----------------------------------------------------------------------------


def list_listeners(transaction: Transaction, events: Sequence[str]) -> dict[str, list[int]]:
    """The active webhooks that are told about each event; an event that nobody wants is left out."""
    listeners: dict[str, list[int]] = {}
    for event, webhook_pk in transaction.rows_in(
        "SELECT webhook_events.event, webhooks.webhook_pk FROM webhook_events"
        f" JOIN webhooks ON webhooks.webhook_pk = webhook_events.webhook_pk AND webhooks.status = '{ACTIVE}'"
        " WHERE webhook_events.event",
        events,
        suffix=" ORDER BY webhooks.webhook_pk",
    ):
        listeners.setdefault(event, []).append(webhook_pk)
    return listeners


def has_any(transaction: Transaction) -> bool:
    """Whether there are webhooks at all."""
    return bool(transaction.rows("SELECT 1 FROM webhooks LIMIT 1"))


def enqueue(transaction: Transaction, webhook_pks: Sequence[int], event: str, body: str) -> list[int]:
    """Put an event into the outbox of these webhooks; those whose outbox is full."""
    full = []
    for webhook_pk in webhook_pks:
        waiting = transaction.rows(
            "SELECT COUNT(*) FROM webhook_deliveries WHERE webhook_pk = ?", (webhook_pk,)
        )[0][0]
        if waiting >= MOST_WAITING:
            full.append(webhook_pk)
            continue
        transaction.run(
            "INSERT INTO webhook_deliveries (delivery_id, webhook_pk, event, body, created_at_ms,"
            " not_before_ms) VALUES (?, ?, ?, ?, ?, ?)",
            (str(uuid4()), webhook_pk, event, body, transaction.now_ms, transaction.now_ms),
        )
    return full


def list_due(
    transaction: Transaction, *, now_ms: int, per_webhook: int, limit: int
) -> list[tuple[int, int, int]]:
    """(delivery_pk, webhook_pk, not_before_ms) of what may be sent now, a few for each webhook."""
    rows = transaction.rows(
        "SELECT delivery_pk, webhook_pk, not_before_ms FROM (SELECT delivery_pk, webhook_pk, not_before_ms,"
        " ROW_NUMBER() OVER (PARTITION BY webhook_pk ORDER BY not_before_ms, delivery_pk) AS place"
        " FROM webhook_deliveries WHERE not_before_ms <= ?) AS due WHERE place <= ?"
        " ORDER BY not_before_ms, delivery_pk LIMIT ?",
        (now_ms, per_webhook, limit),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def claim(
    transaction: Transaction, delivery_pk: int, *, not_before_ms: int, until_ms: int
) -> Delivery | None:
    """Take a delivery until `until_ms`; None when another process has it or its webhook wants none."""
    taken = transaction.rows(
        "UPDATE webhook_deliveries SET attempts = attempts + 1, not_before_ms = ?"
        " WHERE delivery_pk = ? AND not_before_ms = ?"
        " RETURNING delivery_pk, delivery_id, event, body, attempts, webhook_pk",
        (until_ms, delivery_pk, not_before_ms),
    )
    if not taken:
        return None
    _, delivery_id, event, body, attempts, webhook_pk = taken[0]
    rows = transaction.rows(
        f"SELECT {_WEBHOOK} FROM webhooks WHERE webhook_pk = ? AND status = '{ACTIVE}'", (webhook_pk,)
    )
    if not rows:
        settle(transaction, delivery_pk)
        return None
    return Delivery(delivery_pk, delivery_id, event, body, attempts, Webhook(*rows[0]))


def settle(transaction: Transaction, delivery_pk: int) -> None:
    """Take a delivery out of the outbox."""
    transaction.run("DELETE FROM webhook_deliveries WHERE delivery_pk = ?", (delivery_pk,))


def postpone(transaction: Transaction, delivery_pk: int, not_before_ms: int) -> None:
    """Let a delivery wait for its next attempt."""
    transaction.run(
        "UPDATE webhook_deliveries SET not_before_ms = ? WHERE delivery_pk = ?", (not_before_ms, delivery_pk)
    )


def give_back(transaction: Transaction, delivery_pks: Sequence[int]) -> None:
    """Undo claims whose attempt was broken off."""
    transaction.run_many(
        "UPDATE webhook_deliveries SET attempts = attempts - 1, not_before_ms = ? WHERE delivery_pk = ?",
        [(transaction.now_ms, delivery_pk) for delivery_pk in delivery_pks],
    )
