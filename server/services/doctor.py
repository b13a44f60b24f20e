"""Trying each thing that must work, and saying in words how to mend what does not."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from server import __version__
from server.commit.writer import Work, Writer
from server.database.data_folder import file_system_of
from server.domain.clock import Clock
from server.domain.errors import MlflowError
from server.domain.findings import Finding, Outcome
from server.spool.spool import Spool
from server.store import facts

CAPABILITY_FILE = "capabilities.json"
_SLOW_FLUSH_SECONDS = 0.1
_FLUSHES = 5
_LEAST_FREE_BYTES = 1024**3
_FORGETFUL = ("tmpfs", "overlay", "ramfs")


class Workspace(Protocol):
    """The checks of the workspace."""

    capabilities: dict[str, Any]

    def examine(self) -> AsyncIterator[Finding]:
        """Its findings, one after the other."""
        ...


class Doctor:
    """Examines one installation: what it stands on, and the workspace."""

    def __init__(
        self,
        *,
        writer: Writer,
        clock: Clock,
        data_dir: Path,
        spool: Spool,
        database: str,
        workspace_address: str | None,
        workspace: Workspace | None,
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._data_dir = data_dir
        self._spool = spool
        self._database = database
        self._address = workspace_address
        self._workspace = workspace

    async def examine(self) -> AsyncIterator[Finding]:
        """All findings, as they come. What the workspace was seen to do is written to the data folder."""
        yield await self._check_database()
        yield self._check_disk()
        yield await self._check_spool()
        if self._workspace is None:
            yield Finding(
                "workspace",
                Outcome.SKIPPED,
                "none is configured",
                "Set MLPROXY_WORKSPACE to deliver anything.",
            )
            return
        is_well = True
        async for finding in self._workspace.examine():
            is_well = is_well and finding.outcome in (Outcome.OK, Outcome.WARNING)
            yield finding
        if is_well:
            yield self._write_capabilities(self._workspace.capabilities)

    async def _check_database(self) -> Finding:
        """A few flushed commits, as every write makes one."""
        took = []
        for _ in range(_FLUSHES):
            started = self._clock.monotonic()
            try:
                await self._writer.commit(
                    Work(lambda transaction: facts.put(transaction, "doctor", str(transaction.now_ms)))
                )
            except MlflowError as error:
                return Finding(
                    "database",
                    Outcome.FAILED,
                    error.message,
                    f"Nothing can be accepted. Look at the log, at {self._database} and at its disk.",
                )
            took.append(self._clock.monotonic() - started)
        middle = sorted(took)[len(took) // 2]
        found = f"{self._database}: a commit takes {middle * 1000:.1f} ms"
        if middle > _SLOW_FLUSH_SECONDS:
            return Finding(
                "database",
                Outcome.WARNING,
                found,
                "Every answer waits for it: use a faster disk, or a nearer one.",
            )
        return Finding("database", Outcome.OK, found)

    def _check_disk(self) -> Finding:
        usage = shutil.disk_usage(self._data_dir)
        kind = file_system_of(self._data_dir)
        free = f"{usage.free / 1024**3:.1f} GiB free"
        found = f"{self._data_dir.absolute()}: {free}, {kind or 'unknown file system'}"
        if not os.access(self._data_dir, os.W_OK):
            return Finding("disk", Outcome.FAILED, found, "The server's user must own the data folder.")
        if kind in _FORGETFUL:
            return Finding(
                "disk",
                Outcome.WARNING,
                found,
                "What is not delivered yet is lost with the container or at a reboot: mount a volume there.",
            )
        if usage.free < _LEAST_FREE_BYTES:
            return Finding(
                "disk", Outcome.WARNING, found, "Make room, or move MLPROXY_DATA_DIR to a larger disk."
            )
        return Finding("disk", Outcome.OK, found)

    async def _check_spool(self) -> Finding:
        """A file, flushed as that of every upload is."""
        folder = self._spool.folder.absolute()
        started = self._clock.monotonic()
        try:
            await self._spool.try_out()
        except OSError as error:
            return Finding(
                "spool",
                Outcome.FAILED,
                f"{folder}: {error.strerror or type(error).__name__}",
                "No file over 64 KiB can be taken in. The server's user must own the folder, which must be on"
                " a disk, or a share, that can be written and flushed (MLPROXY_SPOOL_DIR).",
            )
        took = self._clock.monotonic() - started
        return Finding("spool", Outcome.OK, f"{folder}: a small file takes {took * 1000:.1f} ms")

    def _write_capabilities(self, capabilities: dict[str, Any]) -> Finding:
        path = self._data_dir / CAPABILITY_FILE
        document = {
            "workspace": self._address,
            "probed_at": datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(
                timespec="seconds"
            ),
            "version": __version__,
            "capabilities": capabilities,
        }
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(document, indent=2) + "\n")
        draft.replace(path)
        return Finding("capabilities", Outcome.OK, f"written to {path.absolute()}")


def read_capabilities(data_dir: Path, workspace_address: str) -> dict[str, Any]:
    """What `doctor` saw this workspace do; empty if it never looked, or looked at another one."""
    try:
        document = json.loads((data_dir / CAPABILITY_FILE).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(document, dict) or document.get("workspace") != workspace_address:
        return {}
    capabilities = document.get("capabilities")
    return capabilities if isinstance(capabilities, dict) else {}
