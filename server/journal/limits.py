"""The workspace's limits, as they were learned from its refusals.

A limit is believed for a day. Then whoever would break it tries once more: a limit that was raised is found
out, and one that was not is learned anew from one refusal.
"""

from collections.abc import Mapping
from datetime import timedelta

from server.database.engine import Transaction
from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit

BELIEVED_FOR = timedelta(days=1)

Limits = Mapping[WorkspaceLimit, int]

_NAMES = frozenset(WorkspaceLimit)


def learn_limit(transaction: Transaction, refusal: LimitRefusal, evidence: str) -> None:
    """Keep what a refusal says of a limit; nothing where it names no figure."""
    if refusal.value is None:
        return
    transaction.run(
        "INSERT INTO workspace_limits (name, value, evidence, learned_at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value, evidence = excluded.evidence,"
        " learned_at_ms = excluded.learned_at_ms",
        (refusal.limit.value, refusal.value, evidence, transaction.now_ms),
    )


def read_limits(transaction: Transaction, *, now_ms: int) -> dict[WorkspaceLimit, int]:
    """The limits that are believed now."""
    oldest_ms = now_ms - int(BELIEVED_FOR.total_seconds() * 1000)
    rows = transaction.rows("SELECT name, value FROM workspace_limits WHERE learned_at_ms > ?", (oldest_ms,))
    return {WorkspaceLimit(name): value for name, value in rows if name in _NAMES}
