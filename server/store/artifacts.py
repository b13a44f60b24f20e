"""Artifact files: where each one's bytes are, and the folders they form.

Folders do not exist by themselves; they are what paths have in common. All listing is by seeks on the key
(root, path): from a folder's first file straight past its last, whatever lies in between.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.database.engine import Transaction
from server.database.together import Change, insert
from server.store.registry import DELETED_STAGE, version_subject

_PUT = insert(
    "artifacts",
    {
        "root_id": "BIGINT",
        "path": "TEXT",
        "size_bytes": "BIGINT",
        "md5": "BYTEA",
        "content": "BYTEA",
        "spool_name": "TEXT",
        "upstream_path": "TEXT",
        "updated_at_ms": "BIGINT",
    },
    "ON CONFLICT (root_id, path) DO UPDATE SET size_bytes = excluded.size_bytes, md5 = excluded.md5,"
    " content = excluded.content, spool_name = excluded.spool_name, upstream_path = excluded.upstream_path,"
    " updated_at_ms = excluded.updated_at_ms",
)
_AFTER_SLASH = "0"
_FEWEST_ROWS = 8
_MOST_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file. Its bytes are in `content`, else in the spool, else in the workspace.

    `md5` tells contents apart. Where the bytes never came by here, it is not their MD5 but stands for it.
    """

    path: str
    size_bytes: int
    md5: bytes
    content: bytes | None
    spool_name: str | None
    upstream_path: str | None

    @property
    def is_here(self) -> bool:
        """Whether the bytes can be read without the workspace."""
        return self.content is not None or self.spool_name is not None


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """What a folder holds: a file, or a folder, which has no size. `name` is one segment."""

    name: str
    is_folder: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A logged model's own folder, and where under its run it is delivered."""

    model_pk: int
    artifact_uri: str
    source_run_id: str | None
    upstream_folder: str | None


# --- roots ----------------------------------------------------------------------------------


def find_root(transaction: Transaction, prefix: str) -> int | None:
    """The root of that prefix."""
    rows = transaction.rows("SELECT root_id FROM artifact_roots WHERE prefix = ?", (prefix,))
    return rows[0][0] if rows else None


def find_or_add_root(
    transaction: Transaction, prefix: str, *, run_pk: int | None = None, model_pk: int | None = None
) -> int:
    """The root of that prefix, made if it is new."""
    found = find_root(transaction, prefix)
    if found is not None:
        return found
    transaction.run(
        "INSERT INTO artifact_roots (prefix, run_pk, model_pk) VALUES (?, ?, ?)"
        " ON CONFLICT (prefix) DO NOTHING",
        (prefix, run_pk, model_pk),
    )
    rows = transaction.rows("SELECT root_id FROM artifact_roots WHERE prefix = ?", (prefix,))
    return int(rows[0][0])


def list_root_folders(transaction: Transaction, folder: str) -> list[str]:
    """Names of the folders directly in `folder` under which roots lie that hold files."""
    column = _in_key_order(transaction, "prefix")
    start = f"{folder}/" if folder else ""
    sql = (
        f"SELECT prefix FROM artifact_roots WHERE {column} >= ? AND prefix <> ''"
        " AND EXISTS (SELECT 1 FROM artifacts WHERE artifacts.root_id = artifact_roots.root_id)"
    )
    parameters = [start]
    if folder:
        sql += f" AND {column} < ?"
        parameters.append(folder + _AFTER_SLASH)
    rows = transaction.rows(sql, parameters)
    return sorted({row[0][len(start) :].partition("/")[0] for row in rows})


def find_model_folder(transaction: Transaction, model_id: str) -> ModelFolder | None:
    """The folder of a logged model."""
    rows = transaction.rows(
        "SELECT model_pk, artifact_uri, source_run_id, upstream_folder FROM logged_models WHERE model_id = ?",
        (model_id,),
    )
    if not rows:
        return None
    transaction.named.add(model_id)
    return ModelFolder(*rows[0])


def find_version_uri(transaction: Transaction, name: str, version: int) -> str | None:
    """Where the files of a model version are, in its own words."""
    rows = transaction.rows(
        "SELECT model_versions.model_pk, COALESCE(model_versions.storage_location, model_versions.source)"
        " FROM registered_models"
        " JOIN model_versions ON model_versions.model_pk = registered_models.model_pk"
        " WHERE registered_models.name = ? AND model_versions.version = ?"
        " AND model_versions.current_stage <> ?",
        (name, version, DELETED_STAGE),
    )
    if not rows:
        return None
    transaction.named.add(version_subject(rows[0][0], version))
    uri: str = rows[0][1]
    return uri


# --- files ----------------------------------------------------------------------------------


def find(transaction: Transaction, root_id: int, path: str) -> ArtifactFile | None:
    """One file."""
    rows = transaction.rows(
        "SELECT path, size_bytes, md5, content, spool_name, upstream_path FROM artifacts"
        " WHERE root_id = ? AND path = ?",
        (root_id, path),
    )
    return ArtifactFile(*rows[0]) if rows else None


def find_owned(transaction: Transaction, prefix: str, path: str) -> ArtifactFile | None:
    """One file under the root of that prefix, if that is known to be a run's or a logged model's own."""
    rows = transaction.rows(
        "SELECT path, size_bytes, md5, content, spool_name, upstream_path FROM artifacts"
        " JOIN artifact_roots USING (root_id)"
        " WHERE prefix = ? AND path = ? AND (run_pk IS NOT NULL OR model_pk IS NOT NULL)",
        (prefix, path),
    )
    return ArtifactFile(*rows[0]) if rows else None


def find_in_root(transaction: Transaction, prefix: str, path: str) -> tuple[int | None, ArtifactFile | None]:
    """The root of that prefix, if there is one, and its file of that path, if it has it."""
    rows = transaction.rows(
        "SELECT artifact_roots.root_id, path, size_bytes, md5, content, spool_name, upstream_path"
        " FROM artifact_roots LEFT JOIN artifacts"
        " ON artifacts.root_id = artifact_roots.root_id AND path = ? WHERE prefix = ?",
        (path, prefix),
    )
    if not rows:
        return None, None
    root_id, *file = rows[0]
    return root_id, None if file[0] is None else ArtifactFile(*file)


def put(transaction: Transaction, root_id: int, file: ArtifactFile) -> Change:
    """The change that stores a file, over what it was."""
    return _PUT, [
        (
            root_id,
            file.path,
            file.size_bytes,
            file.md5,
            file.content,
            file.spool_name,
            file.upstream_path,
            transaction.now_ms,
        )
    ]


def mark_delivered(
    transaction: Transaction,
    root_id: int,
    path: str,
    *,
    md5: bytes,
    spool_name: str | None,
    upstream_path: str,
) -> bool:
    """Note that the workspace holds these bytes; whether the spool may give them up after the commit.

    Nothing changes when other bytes, or the same ones sent anew, have taken their place meanwhile.
    """
    changed = transaction.run(
        "UPDATE artifacts SET spool_name = NULL, upstream_path = ? WHERE root_id = ? AND path = ?"
        " AND md5 = ? AND COALESCE(spool_name, '') = ?",
        (upstream_path, root_id, path, md5, spool_name or ""),
    )
    return changed > 0 and spool_name is not None


def delete_some(
    transaction: Transaction, root_id: int, path: str, *, limit: int
) -> list[tuple[str, str | None]]:
    """Delete the file, or at most `limit` files of the folder: (path, spool name) of each.

    An empty path is the whole root.
    """
    rows = transaction.rows(
        "SELECT path, spool_name FROM artifacts WHERE root_id = ? AND path = ?", (root_id, path)
    )
    if not rows:
        where, parameters = _below(transaction, root_id, path)
        rows = transaction.rows(
            f"SELECT path, spool_name FROM artifacts WHERE {where} LIMIT {limit}", parameters
        )
    transaction.run_many(
        "DELETE FROM artifacts WHERE root_id = ? AND path = ?", [(root_id, row[0]) for row in rows]
    )
    return [(row[0], row[1]) for row in rows]


def is_occupied(transaction: Transaction, root_id: int, upstream_path: str) -> bool:
    """Whether a file of the root is to lie at that place of its run's folder in the workspace."""
    rows = transaction.rows(
        "SELECT logged_models.upstream_folder FROM artifact_roots JOIN logged_models"
        " ON logged_models.model_pk = artifact_roots.model_pk WHERE artifact_roots.root_id = ?",
        (root_id,),
    )
    folder = f"{rows[0][0]}/" if rows and rows[0][0] else ""
    return find(transaction, root_id, upstream_path.removeprefix(folder)) is not None


def release(transaction: Transaction, root_id: int, path: str, spool_name: str) -> bool:
    """Give up the spooled bytes of a file that will never be delivered; whether they were still its bytes."""
    changed = transaction.run(
        "UPDATE artifacts SET spool_name = NULL WHERE root_id = ? AND path = ? AND spool_name = ?",
        (root_id, path, spool_name),
    )
    return changed > 0


def list_spool_names(transaction: Transaction) -> set[str]:
    """The names of all spooled bytes that a file needs."""
    rows = transaction.rows("SELECT spool_name FROM artifacts WHERE spool_name IS NOT NULL")
    return {row[0] for row in rows}


# --- folders --------------------------------------------------------------------------------


def list_folder(transaction: Transaction, root_id: int, folder: str) -> list[FolderEntry]:
    """What lies directly in a folder, by name. A file or an unknown name holds nothing."""
    column = _in_key_order(transaction, "path")
    start = f"{folder}/" if folder else ""
    entries: list[FolderEntry] = []
    operator, seek, limit = ">", start, _FEWEST_ROWS
    where, parameters = _below(transaction, root_id, folder)
    while True:
        rows = transaction.rows(
            f"SELECT path, size_bytes FROM artifacts WHERE {where} AND {column} {operator} ?"
            f" ORDER BY {column} LIMIT {limit}",
            [*parameters, seek],
        )
        for path, size_bytes in rows:
            name, is_deeper, _ = path[len(start) :].partition("/")
            if is_deeper:
                entries.append(FolderEntry(name, is_folder=True, size_bytes=None))
                operator, seek, limit = ">=", start + name + _AFTER_SLASH, _FEWEST_ROWS
                break
            entries.append(FolderEntry(name, is_folder=False, size_bytes=size_bytes))
            operator, seek = ">", path
        else:
            if len(rows) < limit:
                return sorted(entries, key=lambda entry: entry.name)
            limit = min(limit * 2, _MOST_ROWS)


def is_folder(transaction: Transaction, root_id: int, path: str) -> bool:
    """Whether files lie below this path."""
    where, parameters = _below(transaction, root_id, path)
    return bool(transaction.rows(f"SELECT 1 FROM artifacts WHERE {where} LIMIT 1", parameters))


def find_file_above(transaction: Transaction, root_id: int, path: str) -> str | None:
    """A file that the path would make a folder of."""
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    rows = transaction.rows_in(f"SELECT path FROM artifacts WHERE root_id = {int(root_id)} AND path", above)
    return rows[0][0] if rows else None


def _below(transaction: Transaction, root_id: int, folder: str) -> tuple[str, Sequence[object]]:
    """The condition for everything in a folder, at any depth."""
    if not folder:
        return "root_id = ?", [root_id]
    column = _in_key_order(transaction, "path")
    return f"root_id = ? AND {column} > ? AND {column} < ?", [root_id, f"{folder}/", folder + _AFTER_SLASH]


def _in_key_order(transaction: Transaction, column: str) -> str:
    """The column compared code point by code point, as SQLite does it anyway."""
    return f'{column} COLLATE "C"' if transaction.is_postgres else column
