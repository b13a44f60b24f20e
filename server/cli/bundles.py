"""`export` and `import`: experiments as one file, for sites that no network connects."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.backup import BackupTargetError, partial_file
from server.cli.console import OWN, app, explained, run, say, settings_of, shown_size
from server.domain.errors import OperatorError

if TYPE_CHECKING:
    import httpx

    from server.protocol.bundles import FilePart, Header, Part
    from server.services.sealed_tar import Member
    from server.settings import Settings

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_PATIENCE_SECONDS = 3600.0
_PIECE_BYTES = 1024 * 1024
_NICENESS = 10
_SECONDS_BETWEEN_LINES = 5.0
_FULL = 429
_LONGEST_WAIT_SECONDS = 30.0


class BundleRefusedError(OperatorError):
    """The server does not make, or take, the bundle; the message says why."""


class _ServerFullError(Exception):
    """The server has no room now; it may have in so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@app.command("export")
def export_experiments(
    named: Annotated[list[str], typer.Argument(metavar="EXPERIMENT…", help="Names or ids.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write; it may end in .gz.")],
) -> None:
    """Write experiments with all their runs to one file, while the server serves.

    The file holds what was logged: params, tags, whole metric histories, datasets, logged models and the
    bytes of artifacts. Deleted runs and traces are not in it. Only its owner may read it.
    """
    settings = settings_of()
    os.nice(_NICENESS)
    with explained():
        run(_export(settings, named, output))


async def _export(settings: "Settings", named: list[str], output: Path) -> None:
    from server.admin import connect
    from server.services.bundle_file import check_bundle

    with partial_file(output) as partial:
        async with (
            connect(settings, patience=_PATIENCE_SECONDS, delivers=False) as client,
            client.stream("POST", f"{OWN}/export", json={"experiments": named}) as answer,
        ):
            await _require_success(answer)
            progress = _Progress("written")
            async for piece in answer.aiter_raw(_PIECE_BYTES):
                partial.write(piece)
                progress.add(len(piece))
        partial.finish()
        typer.echo("Reading it again to check it.", err=True)
        header = check_bundle(partial.path)
        size_bytes = partial.publish()
    say(f"{output}: {shown_size(size_bytes)}, {len(header.experiments)} experiments.")


@app.command("import")
def import_bundle(
    file: Annotated[
        Path, typer.Argument(help="A file that `mlproxy export` wrote.", exists=True, dir_okay=False)
    ],
) -> None:
    """Take in a bundle, while the server serves; what it holds is delivered as if it had been logged here.

    The whole file is checked before anything is changed. An import that was cut off goes on where it stopped,
    and one that was made before changes nothing.
    """
    settings = settings_of()
    with explained():
        try:
            run(_import(settings, file))
        except OSError as error:
            raise BackupTargetError(f"{file} could not be read: {error.strerror}.") from error


async def _import(settings: "Settings", file: Path) -> None:
    from server.admin import connect
    from server.services.bundle_file import check_bundle

    header = check_bundle(file)
    async with connect(settings, patience=_PATIENCE_SECONDS, delivers=False) as client:
        while True:
            try:
                is_new = await _import_rest(client, file, header)
                break
            except _ServerFullError as full:
                typer.echo("The server is full: waiting until it has delivered something.", err=True)
                await asyncio.sleep(full.seconds)
    names = ", ".join(item.name for item in header.experiments)
    if is_new:
        say(f"Imported {names}.")
    else:
        say(f"{file} was imported before: {names}. Nothing was changed.")


async def _import_rest(client: "httpx.AsyncClient", file: Path, header: "Header") -> bool:
    """Import what is not here yet; whether that was anything."""
    from server.services.bundle_file import BundleReader

    reader = BundleReader(file)
    reader.header()
    begin = {"bundle_id": header.bundle_id, "experiments": [item.name for item in header.experiments]}
    next_part = (await _ask(client, f"{OWN}/import", json=begin))["next_part"]
    progress = _Progress("of files read")
    lists = 0
    for number, parts, member in reader.contents():
        lists += 1
        # Of the last list that was applied, the file may be missing.
        if number >= next_part - 1:
            await _import_list(client, f"{OWN}/import/{header.bundle_id}/{number}", parts, member, progress)
    return bool(lists > next_part)


async def _import_list(
    client: "httpx.AsyncClient",
    path: str,
    parts: list["Part"],
    member: "Member | None",
    progress: "_Progress",
) -> None:
    from server.protocol.bundles import FilePart, encode_parts

    headers = {"content-type": "application/msgpack"}
    answer = await _ask(client, path, content=encode_parts(parts), headers=headers)
    last = parts[-1] if parts else None
    upload_to = answer.get("upload_to")
    if member is None or upload_to is None or not isinstance(last, FilePart):
        return
    await _upload(client, upload_to, last, member, progress)


async def _upload(
    client: "httpx.AsyncClient", path: str, part: "FilePart", member: "Member", progress: "_Progress"
) -> None:
    """Upload the member's bytes."""
    from urllib.parse import quote

    async def pieces() -> AsyncIterator[bytes]:
        for piece in member.pieces():
            progress.add(len(piece))
            yield piece

    answer = await client.put(
        f"{_ARTIFACTS}/{quote(path)}",
        content=pieces(),
        headers={"content-length": str(part.size_bytes), "content-type": "application/octet-stream"},
    )
    await _require_success(answer)


async def _ask(client: "httpx.AsyncClient", path: str, **content: Any) -> dict[str, Any]:
    """The answer to a POST."""
    answer = await client.post(path, **content)
    await _require_success(answer)
    found: dict[str, Any] = answer.json()
    return found


async def _require_success(answer: "httpx.Response") -> None:
    if not answer.is_error:
        return
    await answer.aread()
    if answer.status_code == _FULL:
        raise _ServerFullError(min(float(answer.headers.get("retry-after", 1)), _LONGEST_WAIT_SECONDS))
    try:
        message = answer.json().get("message", answer.text)
    except ValueError:
        message = answer.text
    raise BundleRefusedError(message)


class _Progress:
    """Says now and then, on stderr, how far it is."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._bytes = 0
        self._told_at = time.monotonic()

    def add(self, count: int) -> None:
        """So many bytes more."""
        self._bytes += count
        if time.monotonic() > self._told_at + _SECONDS_BETWEEN_LINES:
            self._told_at = time.monotonic()
            typer.echo(f"{shown_size(self._bytes)} {self._what}", err=True)
