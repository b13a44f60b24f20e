"""How far the import of each bundle has come."""

import json
from dataclasses import asdict, dataclass, field

from server.database.engine import Transaction
from server.store import facts

_NAME = "import "


@dataclass(slots=True)
class ImportState:
    """The next list of parts to apply, and the experiments here by their id in the bundle."""

    next_part: int = 0
    experiments: dict[str, int] = field(default_factory=dict)


def find(transaction: Transaction, bundle_id: str) -> ImportState:
    """How far the import has come; at its beginning, if it is not known."""
    value = facts.find(transaction, _NAME + bundle_id)
    return ImportState() if value is None else ImportState(**json.loads(value))


def put(transaction: Transaction, bundle_id: str, state: ImportState) -> None:
    """Write down how far it has come."""
    facts.put(transaction, _NAME + bundle_id, json.dumps(asdict(state)))


def set_experiment_creation(transaction: Transaction, experiment_id: int, creation_time_ms: int) -> None:
    """Give an experiment that was just made the age it had where it comes from."""
    transaction.run(
        "UPDATE experiments SET creation_time_ms = ? WHERE experiment_id = ?",
        (creation_time_ms, experiment_id),
    )
