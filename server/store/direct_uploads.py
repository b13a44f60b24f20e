"""Uploads that go from a client straight to the workspace's storage, while they are under way."""

from dataclasses import dataclass
from typing import Any

from server.database.engine import Transaction

_COLUMNS = "upload_id, path, run_id, upstream_path, parts, is_new, principal"


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """One of them. `path` is as clients send it; `is_new` says that the workspace had no such path before."""

    upload_id: str
    path: str
    run_id: str
    upstream_path: str
    parts: int
    is_new: bool
    principal: str | None


def insert(transaction: Transaction, upload: DirectUpload) -> None:
    """Note an upload that begins."""
    transaction.run(
        f"INSERT INTO direct_uploads ({_COLUMNS}, created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            upload.upload_id,
            upload.path,
            upload.run_id,
            upload.upstream_path,
            upload.parts,
            int(upload.is_new),
            upload.principal,
            transaction.now_ms,
        ),
    )


def find(transaction: Transaction, upload_id: str) -> DirectUpload | None:
    """The upload, if it is still under way."""
    rows = transaction.rows(f"SELECT {_COLUMNS} FROM direct_uploads WHERE upload_id = ?", (upload_id,))
    return _upload(rows[0]) if rows else None


def list_abandoned(transaction: Transaction, *, before_ms: int, limit: int) -> list[DirectUpload]:
    """Uploads that began before a moment, the oldest first."""
    rows = transaction.rows(
        f"SELECT {_COLUMNS} FROM direct_uploads WHERE created_at_ms < ? ORDER BY created_at_ms LIMIT ?",
        (before_ms, limit),
    )
    return [_upload(row) for row in rows]


def is_awaited(transaction: Transaction, path: str) -> bool:
    """Whether an upload to this path is under way."""
    return bool(transaction.rows("SELECT 1 FROM direct_uploads WHERE path = ? LIMIT 1", (path,)))


def delete(transaction: Transaction, upload_id: str) -> None:
    """Forget an upload that has ended."""
    transaction.run("DELETE FROM direct_uploads WHERE upload_id = ?", (upload_id,))


def _upload(row: tuple[Any, ...]) -> DirectUpload:
    upload_id, path, run_id, upstream_path, parts, is_new, principal = row
    return DirectUpload(upload_id, path, run_id, upstream_path, parts, bool(is_new), principal)
