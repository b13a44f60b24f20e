"""Facts about this installation."""

from server.database.engine import Transaction


def find(transaction: Transaction, name: str) -> str | None:
    """A fact's value."""
    rows = transaction.rows("SELECT value FROM facts WHERE name = ?", (name,))
    return rows[0][0] if rows else None


def put(transaction: Transaction, name: str, value: str) -> None:
    """Write a fact down, over what it was."""
    transaction.run(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value ="
        " excluded.value",
        (name, value),
    )


def find_delivered_workspace(transaction: Transaction) -> str | None:
    """The workspace that something was delivered to."""
    rows = transaction.rows("SELECT address FROM workspaces WHERE first_delivery_ms IS NOT NULL LIMIT 1")
    return rows[0][0] if rows else None


def bind_workspace(transaction: Transaction, address: str) -> None:
    """From now on deliveries go to this workspace."""
    transaction.run("DELETE FROM workspaces WHERE first_delivery_ms IS NULL AND address <> ?", (address,))
    transaction.run(
        "INSERT INTO workspaces (address) VALUES (?) ON CONFLICT (address) DO NOTHING", (address,)
    )


def note_first_delivery(transaction: Transaction) -> None:
    """Something is about to be delivered to the bound workspace: the choice is final."""
    transaction.run(
        "UPDATE workspaces SET first_delivery_ms = ? WHERE first_delivery_ms IS NULL", (transaction.now_ms,)
    )
