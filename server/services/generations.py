"""Generations of the journal: a restore begins a new one.

The former generation may have delivered entries that the restored journal holds as undelivered, and given out
ids and written values that nothing here knows of.
"""

from dataclasses import dataclass

from server.database import copying
from server.database.engine import Transaction
from server.journal import restored
from server.store import facts

INSTALLATION = "installation"
_GENERATION = "generation"
_SKIPPED_KEYS = 1000


@dataclass(frozen=True, slots=True)
class GenerationState:
    """The journal's generation. The moments are None for a journal that was never restored.

    `restored_from_ms` is when the backup was made; `being_read_back` counts the entries from before the
    restore that are not settled.
    """

    installation: str
    generation: int
    restored_at_ms: int | None
    restored_from_ms: int | None
    being_read_back: int


def read_state(transaction: Transaction) -> GenerationState:
    """The generation as it is now."""
    return GenerationState(
        installation=facts.find(transaction, INSTALLATION) or "",
        generation=int(facts.find(transaction, _GENERATION) or 1),
        restored_at_ms=restored.restored_at(transaction),
        restored_from_ms=restored.restored_from(transaction),
        being_read_back=restored.count_doubted(transaction),
    )


def begin_next(transaction: Transaction, *, restored_from_ms: int) -> GenerationState:
    """Begin a new generation on a journal that was restored from a backup of that moment."""
    generation = read_state(transaction).generation + 1
    facts.put(transaction, _GENERATION, str(generation))
    facts.put(transaction, restored.RESTORED_AT, str(transaction.now_ms))
    facts.put(transaction, restored.RESTORED_FROM, str(restored_from_ms))
    restored.doubt_undelivered(transaction)
    # Clients may still use ids that were given out since the backup: they must not come to mean other things.
    copying.skip_keys(transaction, _SKIPPED_KEYS)
    return read_state(transaction)
