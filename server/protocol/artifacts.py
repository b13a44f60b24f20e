"""Artifact names: what they may be, and what they mean.

Names come decoded once, by the web server or the query parser, and are never decoded again: they are
keys of a table, not paths of a file system. So a name may hold `#`, `%`, `?` or spaces; what is refused is
whatever some reader further on could take for a way out of its folder.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import msgspec

from server.domain.errors import MlflowError, invalid_parameter
from server.protocol.wire import Request, RunRequest

LONGEST_PATH = 5_000
URI_SCHEME = "mlflow-artifacts"

_DEEPEST_ENCODING = 10
_MOST_OWNERS = 16
_OWNED_FOLDER = "artifacts"
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ArtifactAddress:
    """A folder (`prefix`, without outer slashes) and a path in it.

    `owner_id` is the id that a run or a logged model must have for the folder to be its own; None is the
    common folder of everything else.
    """

    prefix: str
    path: str
    owner_id: str | None


# --- names ----------------------------------------------------------------------------------


def checked_path(path: str | None) -> str:
    """The name of a file, if it is relative, normal and can mean nothing else.

    Raises:
        MlflowError: it is not.
    """
    if not path or len(path) > LONGEST_PATH or not _is_normal(path) or "" in path.split("/"):
        raise invalid_path()
    decoded = path
    for _ in range(_DEEPEST_ENCODING):
        previous, decoded = decoded, unquote(decoded)
        if decoded == previous:
            return path
        # Control characters may come of a plain `%`: image names of older clients are full of them.
        if _leads_elsewhere(decoded):
            break
    raise invalid_path()


def checked_folder(path: str | None) -> str:
    """The name of a folder, under the rules of `checked_path`; the outermost one is empty."""
    if not path:
        return ""
    return checked_path(path.removesuffix("/"))


def invalid_path() -> MlflowError:
    """MLflow's answer to a name that could lead somewhere else."""
    return invalid_parameter("Invalid path")


def _is_normal(path: str) -> bool:
    return not _UNUSABLE.search(path) and not _leads_elsewhere(path)


def _leads_elsewhere(path: str) -> bool:
    if "\0" in path or "\\" in path or path.startswith("/"):
        return True
    return any(part in {".", ".."} or _DRIVE.fullmatch(part) for part in path.split("/"))


# --- addresses ------------------------------------------------------------------------------


def possible_addresses(path: str) -> list[ArtifactAddress]:
    """What a path can mean, the outermost owner first, the common folder last.

    The folder of a run is `{location}/{run_id}/artifacts`, that of a logged model
    `{location}/models/{model_id}/artifacts`. The location is free text, so only the store can tell.
    """
    parts = path.split("/") if path else []
    owned = [index for index in range(1, len(parts)) if parts[index] == _OWNED_FOLDER]
    addresses = [
        ArtifactAddress("/".join(parts[: index + 1]), "/".join(parts[index + 1 :]), parts[index - 1])
        for index in owned[:_MOST_OWNERS]
    ]
    return [*addresses, ArtifactAddress("", path, None)]


def prefix_of_uri(uri: str) -> str | None:
    """The path under this server that a `mlflow-artifacts:` URI names, without outer slashes."""
    scheme, separator, rest = uri.partition(":")
    if scheme != URI_SCHEME or not separator:
        return None
    path = urlsplit(rest).path if rest.startswith("//") else rest
    return re.sub("/+", "/", path).strip("/")


# --- messages -------------------------------------------------------------------------------


class FolderRequest(Request):
    """mlflow-artifacts/artifacts."""

    path: str | None = None


class RunFolderRequest(RunRequest):
    """artifacts/list."""

    path: str | None = None


class LoggedModelFolderRequest(Request):
    """logged-models/{model_id}/artifacts/directories."""

    artifact_directory_path: str | None = None


class RunFileRequest(RunRequest):
    """get-artifact."""

    path: str | None = None


class LoggedModelFileRequest(Request):
    """logged-models/{model_id}/artifacts/files."""

    artifact_file_path: str | None = None


class ModelVersionFileRequest(Request):
    """model-versions/get-artifact."""

    name: str | None = None
    version: int | None = None
    path: str | None = None


class FileMessage(msgspec.Struct, omit_defaults=True):
    """A file, or a folder, which has no size."""

    path: str
    is_dir: bool
    file_size: int | None = None


class FilesAnswer(msgspec.Struct, omit_defaults=True):
    """mlflow-artifacts/artifacts."""

    files: list[FileMessage] = []


class RootedFilesAnswer(msgspec.Struct, omit_defaults=True):
    """artifacts/list, and the directories of a logged model."""

    root_uri: str
    files: list[FileMessage] = []
