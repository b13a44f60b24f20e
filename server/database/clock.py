"""The time that all replicas on one Postgres share.

What one replica writes down ("not before", "accepted at") another compares with its own time, and the clocks
of their machines may be minutes apart. So each goes by the database's clock: it asks once, and counts on from
there by its own steady time.
"""

from server.database import postgres
from server.database.engine import Database, Transaction
from server.domain.clock import Clock


class DatabaseClock:
    """The machine's steady time, set by the database's clock. `ask` or `align` before first use."""

    def __init__(self, machine: Clock) -> None:
        self._machine = machine
        self._ahead_ms = machine.now_ms() - machine.monotonic() * 1000

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return int(self._machine.monotonic() * 1000 + self._ahead_ms)

    def monotonic(self) -> float:
        """Seconds that only grow, from an arbitrary start."""
        return self._machine.monotonic()

    def align(self, database_ms: int, asked_at: float) -> None:
        """The database's clock showed `database_ms` between `asked_at` (by `monotonic`) and now."""
        middle = (asked_at + self._machine.monotonic()) / 2
        self._ahead_ms = database_ms - middle * 1000

    async def ask(self, database: Database) -> None:
        """Ask the database for the time."""
        asked_at = self.monotonic()
        self.align(await database.read(_ask), asked_at)


def _ask(transaction: Transaction) -> int:
    return int(transaction.rows(f"SELECT {postgres.CLOCK}")[0][0])


def moment_of(transaction: Transaction, machine: Clock) -> int:
    """The time (milliseconds since the Unix epoch) that those go by who use this database."""
    return _ask(transaction) if transaction.is_postgres else machine.now_ms()
