"""Getting the stock MLflow UI: out of MLflow's published wheel, whose hash is known here."""

import gzip
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from server.domain.errors import OperatorError
from server.services.ui_files import BUILD, COMPRESSED, UI_VERSION, build_folder, is_installed, is_text

WHEEL_SHA256 = "be7d84ba0d0b12392f5b53260cdb3e6d7b7ef4b80c29da90a89b5a1f6db7102f"

_IN_WHEEL = PurePosixPath("mlflow/server/js/build")
_LICENSE = f"mlflow-{UI_VERSION}.dist-info/licenses/LICENSE.txt"
_REQUIREMENT = f"mlflow=={UI_VERSION} --hash=sha256:{WHEEL_SHA256}\n"
_DOWNLOAD_SECONDS = 900
_LARGEST_FILE = 32 * 1024 * 1024
_LARGEST_BUILD = 128 * 1024 * 1024
_MOST_FILES = 5_000
_LEAST_COMPRESSED = 1_024
_LINK_MODE = 0o120000
_FILE_TYPE_MASK = 0o170000
_SAID_LINES = 6


class UiInstallError(OperatorError):
    """The files could not be had; the message says why and what to do."""


def install_ui(folder: Path, wheel: Path | None = None) -> bool:
    """Put the files under the folder of versions; False if they are there already.

    Raises:
        UiInstallError: the wheel cannot be had, or is not the one that is known here.
    """
    if is_installed(build_folder(folder)):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _work_folder(folder) as work:
            found = wheel if wheel is not None else _download(work)
            _check_hash(found)
            fresh = work / UI_VERSION
            _unpack(found, fresh)
            return _put(fresh, folder / UI_VERSION)
    except OSError as error:
        raise UiInstallError(f"The UI's files cannot be written to {folder}: {error.strerror}") from error


@contextmanager
def _work_folder(folder: Path) -> Iterator[Path]:
    """A folder on the same file system, so that what is in it can be moved into place in one step."""
    work = Path(tempfile.mkdtemp(prefix=".install-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(fresh: Path, final: Path) -> bool:
    if final.exists() and not is_installed(final / BUILD):
        shutil.rmtree(final)
    try:
        fresh.rename(final)
    except OSError:
        if is_installed(final / BUILD):  # somebody else was faster
            return False
        raise
    return True


# --- the wheel ------------------------------------------------------------------------------


def _download(work: Path) -> Path:
    """The wheel, by this interpreter's own pip and so from where its user's settings say."""
    requirements = work / "requirements.txt"
    requirements.write_text(_REQUIREMENT)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--dest", str(work), "--requirement", str(requirements)]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _no_download(f"pip did not end within {_DOWNLOAD_SECONDS} s") from error
    wheels = list(work.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise _no_download("\n".join(done.stderr.strip().splitlines()[-_SAID_LINES:]) or "pip said nothing")
    return wheels[0]


def _no_download(reason: str) -> UiInstallError:
    return UiInstallError(
        f"MLflow's wheel could not be downloaded: {reason}\n"
        f"Where there is no network, bring the file over (pip download --no-deps mlflow=={UI_VERSION})"
        " and give it: mlproxy ui install --from-wheel FILE"
    )


def _check_hash(wheel: Path) -> None:
    try:
        with wheel.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise UiInstallError(f"{wheel} cannot be read: {error.strerror}") from error
    if digest != WHEEL_SHA256:
        raise UiInstallError(
            f"{wheel} is not the wheel of mlflow {UI_VERSION}: its SHA-256 is {digest}, not {WHEEL_SHA256}."
        )


# --- what is in it --------------------------------------------------------------------------


def _unpack(wheel: Path, target: Path) -> None:
    try:
        with ZipFile(wheel) as archive:
            members = _members(archive)
            for member, name in members.items():
                _write(target / BUILD / name, _read(archive, member))
            (target / "LICENSE.txt").write_bytes(_read(archive, archive.getinfo(_LICENSE)))
    except (BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise UiInstallError(f"{wheel} is not a wheel that can be read: {error}") from error


def _members(archive: ZipFile) -> dict[ZipInfo, PurePosixPath]:
    """The UI's files, each with its place below the build folder."""
    members: dict[ZipInfo, PurePosixPath] = {}
    for member in archive.infolist():
        path = PurePosixPath(member.filename)
        if member.is_dir() or not path.is_relative_to(_IN_WHEEL):
            continue
        if ".." in path.parts or "\\" in member.filename or _is_link(member):
            raise UiInstallError(f"The wheel holds a file that must not be unpacked: {member.filename!r}")
        members[member] = path.relative_to(_IN_WHEEL)
    if len(members) > _MOST_FILES or sum(member.file_size for member in members) > _LARGEST_BUILD:
        raise UiInstallError("The wheel holds more than an MLflow UI.")
    return members


def _is_link(member: ZipInfo) -> bool:
    return (member.external_attr >> 16) & _FILE_TYPE_MASK == _LINK_MODE


def _read(archive: ZipFile, member: ZipInfo) -> bytes:
    """The content, never more than was announced."""
    if member.file_size > _LARGEST_FILE:
        raise UiInstallError(f"The wheel's {member.filename} is larger than any file of an MLflow UI.")
    with archive.open(member) as content:
        return content.read(member.file_size)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if len(content) >= _LEAST_COMPRESSED and is_text(path.name):
        path.with_name(path.name + COMPRESSED).write_bytes(gzip.compress(content, mtime=0))
