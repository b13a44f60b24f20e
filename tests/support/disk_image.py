"""What a power failure leaves: of each file what was flushed, and of the rest as much as chance wants."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.disk_trace import Flushed, Note, Opened, Truncated, Written

SECTOR = 512
Chooser = Callable[[list[Written | Truncated]], list[Written | Truncated]]


@dataclass(slots=True)
class _File:
    """`flushed` is on the disk; `waiting` is in the system's cache only."""

    flushed: bytearray
    is_entered: bool
    """Whether the folder that names it was flushed since it was made."""
    waiting: list[Written | Truncated] = field(default_factory=list)


@dataclass(slots=True)
class Disk:
    """The files below one folder, as a disk has them. What was there at the start counts as flushed."""

    folder: Path
    _files: dict[str, _File] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.folder.rglob("*"):
            if path.is_file():
                self._files[str(path)] = _File(bytearray(path.read_bytes()), is_entered=True)

    def follow(self, note: Note) -> None:
        """Take in what the process did next."""
        match note:
            case Opened(path) if self._is_ours(path):
                self._files.setdefault(path, _File(bytearray(), is_entered=False))
            case Written(path) | Truncated(path) if path in self._files:
                self._files[path].waiting.append(note)
            case Flushed(path) if path in self._files:
                file = self._files[path]
                file.flushed = _applied(file.flushed, file.waiting)
                file.waiting = []
            case Flushed(path):
                for name, file in self._files.items():
                    file.is_entered |= str(Path(name).parent) == path

    def write_to(self, folder: Path, choose: Chooser) -> None:
        """Make the image: `choose` says which of a file's waiting changes reached the disk all the same."""
        for name, file in self._files.items():
            if file.is_entered:
                target = folder / Path(name).relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_applied(file.flushed, choose(file.waiting)))

    def _is_ours(self, path: str) -> bool:
        return path.startswith(f"{self.folder}/")


def nothing(_: list[Written | Truncated]) -> list[Written | Truncated]:
    """Nothing that was not flushed is there."""
    return []


def torn(chance: random.Random) -> Chooser:
    """Some of it is there, in any combination, and of the last a few sectors only."""

    def choose(waiting: list[Written | Truncated]) -> list[Written | Truncated]:
        kept = [change for change in waiting if chance.random() < 0.5]
        if kept and isinstance(last := kept[-1], Written):
            size = SECTOR * chance.randint(0, len(last.data) // SECTOR)
            kept[-1] = Written(last.path, last.offset, last.data[:size])
        return kept

    return choose


def _applied(content: bytearray, changes: list[Written | Truncated]) -> bytearray:
    result = bytearray(content)
    for change in changes:
        if isinstance(change, Truncated):
            result = result[: change.size].ljust(change.size, b"\0")
            continue
        end = change.offset + len(change.data)
        if len(result) < end:
            result.extend(bytes(end - len(result)))
        result[change.offset : end] = change.data
    return result
