"""The data folder: the file system it lies on, and its lock."""

from pathlib import Path

import pytest

from server.database import data_folder
from server.database.data_folder import DataFolderError, FolderLock, file_system_of, require_local_disk

_MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /data ext4 rw 0 0
server:/export /data/shared nfs4 rw 0 0
//nas/share /mnt/with\\040space cifs rw 0 0
tmpfs /data/shared/local tmpfs rw 0 0
/dev/sdb1 /twice ext4 rw 0 0
server:/x /twice nfs rw 0 0
broken
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A table of mounts with most of what such tables hold."""
    file = tmp_path / "mounts"
    file.write_text(_MOUNTS)
    return file


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "overlay"),
        ("/srv", "overlay"),
        ("/data", "ext4"),
        ("/data/x/y", "ext4"),
        ("/database", "overlay"),
        ("/data/shared", "nfs4"),
        ("/data/shared/x", "nfs4"),
        ("/data/shared/local/x", "tmpfs"),
        ("/mnt/with space/x", "cifs"),
        ("/twice", "nfs"),
    ],
)
def test_the_innermost_and_latest_mount_decides(mounts: Path, folder: str, kind: str) -> None:
    """A folder lies on the file system that is mounted nearest above it."""
    assert file_system_of(Path(folder), mounts) == kind


def test_where_the_system_does_not_tell_nothing_is_known(tmp_path: Path) -> None:
    """Without a table of mounts the folder is taken as it is."""
    assert file_system_of(tmp_path, tmp_path / "absent") is None


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """A link on a local disk to a share is a folder on the share."""
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "link").symlink_to(share)
    table = tmp_path / "mounts"
    table.write_text(f"overlay / overlay rw 0 0\nserver:/x {share} nfs rw 0 0\n")
    assert file_system_of(tmp_path / "link", table) == "nfs"


def test_a_network_file_system_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the kind and the way out."""
    monkeypatch.setattr(data_folder, "file_system_of", lambda folder: "nfs4")
    with pytest.raises(DataFolderError, match=r"network file system \(nfs4\).*Postgres"):
        require_local_disk(tmp_path)


def test_a_local_disk_is_accepted(tmp_path: Path) -> None:
    """Where tests keep their files, a server may keep its own."""
    require_local_disk(tmp_path)


def test_a_folder_is_held_by_one_until_it_is_given_back(tmp_path: Path) -> None:
    """The second to ask is refused, and gets it after the first."""
    first, second = FolderLock(tmp_path / "new"), FolderLock(tmp_path / "new")
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()
