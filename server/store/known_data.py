"""What is known here of a run's data, to tell it from what others wrote."""

from dataclasses import dataclass

from server.database.engine import Transaction


@dataclass(frozen=True, slots=True)
class KnownData:
    """The keys of a run's params, and the highest step of each of its metrics."""

    params: frozenset[str]
    highest_steps: dict[str, int]


def read_known_data(transaction: Transaction, run_pk: int) -> KnownData:
    """What is known of a run."""
    params = transaction.rows("SELECT key FROM params WHERE run_pk = ?", (run_pk,))
    steps = transaction.rows("SELECT key, latest_step FROM series WHERE run_pk = ?", (run_pk,))
    return KnownData(frozenset(row[0] for row in params), {row[0]: row[1] for row in steps})
