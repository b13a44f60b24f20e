"""Files of the spool that are held while a backup copies them."""

import errno
import os
from pathlib import Path

import pytest

from server.spool.holds import Hold, clear_abandoned


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A folder with two files."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def _hold(folder: Path) -> Hold:
    return Hold(folder, lambda name: folder / name)


def test_a_held_file_outlives_its_removal(spool: Path) -> None:
    """Whoever removes a file takes nothing from those who hold it."""
    hold = _hold(spool)
    assert hold.add(["one", "two"]) == []
    (spool / "one").unlink()
    assert hold.path_of("one").read_bytes() == b"one"
    hold.release()
    assert sorted(path.name for path in spool.iterdir()) == ["two"]


def test_what_is_gone_already_is_named(spool: Path) -> None:
    """A file that cannot be held any more is known, and one that is held already stays held."""
    hold = _hold(spool)
    assert hold.add(["one"]) == []
    (spool / "one").unlink()
    assert hold.add(["one", "two", "three"]) == ["three"]
    hold.release()


def test_without_hard_links_files_are_copied(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a share that knows no links the bytes are held all the same."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "link", refuse)
    hold = _hold(spool)
    assert hold.add(["one", "three"]) == ["three"]
    (spool / "one").unlink()
    assert hold.path_of("one").read_bytes() == b"one"
    hold.release()


def test_only_what_dead_holders_left_is_cleared(spool: Path) -> None:
    """A hold whose process has gone is removed, one that is in use is not."""
    alive, dead = _hold(spool), _hold(spool)
    for hold in (alive, dead):
        hold.add(["one"])
    assert dead._lock is not None
    os.close(dead._lock)  # as the system does when a process dies
    assert clear_abandoned(spool) == 1
    assert not dead.folder.exists()
    assert alive.path_of("one").exists()
    alive.release()
    assert clear_abandoned(spool) == 0
    assert sorted(path.name for path in spool.iterdir()) == ["one", "two"]
