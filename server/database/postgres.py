"""What is particular to Postgres: how we connect, when it is away.

A replica that is stopped in the middle of a transaction holds rows that others wait for. Postgres ends
such a session after a while; what it had done is undone, and the replica starts that transaction again.
"""

from typing import Any

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.domain.errors import ErrorCode, MlflowError

CONNECT_ARGUMENTS: dict[str, Any] = {
    "connect_timeout": 5,
    # A database whose machine has gone silent is noticed within half a minute.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
IDLE_IN_TRANSACTION_SECONDS = 10
"""How long a transaction may do nothing: longer than any of ours, shorter than others can wait."""

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The database's own clock in SQL: milliseconds since the Unix epoch."""

LOCK_CLASS = 0x6D6C7078
"""The first half of the names of our advisory locks."""
_SETTING_UP = 2**31 - 1
_WRITERS_PLANS = (
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    # A scan that cannot be avoided counts as dear, and what is dear would be compiled first.
    "jit = off",
)
_CONNECTION_CLASS = "08"
_AWAY_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "25P03"})
"""Shut down by an administrator or a crash, starting up, session ended for idling, no connection free."""


class DatabaseAwayError(MlflowError):
    """The database cannot be reached now, and nothing was kept. 429: every client asks again."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.TEMPORARILY_UNAVAILABLE,
            "The server's database cannot be reached at the moment; nothing of this request was kept."
            " Try again.",
            status=429,
            headers={"Retry-After": "1"},
        )


class OutcomeUnknownError(MlflowError):
    """The database went away in the middle of a commit and did not come back in time to tell."""

    def __init__(self) -> None:
        super().__init__(
            ErrorCode.TEMPORARILY_UNAVAILABLE,
            "The server's database went away while it kept this request, and may have kept it.",
            headers={"Retry-After": "5"},
            may_be_kept=True,
        )


def limit_idle_transactions(connection: Any, _record: object) -> None:
    """Let Postgres end a session that is stuck in a transaction. For each new connection."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'")
    cursor.close()
    connection.commit()


def plan_by_key(connection: Any) -> None:
    """Plan what a writer asks once, and always by an index. For a connection that writes.

    A writer finds everything by its key. Postgres would plan anew, for more than the statement costs,
    whenever it holds that to be better for the few keys of the day; and a plan that it made while a table was
    small would scan it when it has grown.
    """
    cursor = connection.cursor()
    for setting in _WRITERS_PLANS:
        cursor.execute(f"SET {setting}")
    cursor.close()
    connection.commit()


def set_up_alone(transaction: Any) -> None:
    """Until the transaction ends, no other process sets up what all of them start from. No-op on SQLite."""
    if transaction.is_postgres:
        transaction.rows("SELECT pg_advisory_xact_lock(?, ?)", (LOCK_CLASS, _SETTING_UP))


def is_away(error: BaseException, connection: Any = None) -> bool:
    """Whether an error says that the database, not the statement, is the trouble.

    `connection` is the driver's, where there was one already.
    """
    if isinstance(error, PoolTimeoutError):
        return True
    if connection is None:
        return isinstance(error, OperationalError)
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    if not hasattr(cause, "sqlstate"):
        return False  # none of the driver's errors
    state = cause.sqlstate or ""
    return bool(connection.closed) or state in _AWAY_STATES or state.startswith(_CONNECTION_CLASS)
