"""Messages about artifacts whose bytes go between the client and storage directly.

The signed addresses in the answers are secrets: whoever has one reads or writes that file until it expires.
"""

import re
from pathlib import PurePosixPath, PureWindowsPath

import msgspec

from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.protocol.wire import Request, RunRequest

LONGEST_EXPIRATION_SECONDS = 604_800
_ON_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class MultipartRequest(Request):
    """What all of a multipart upload's calls say: `path` is the file's on the client's machine."""

    path: str | None = None


class CreateMultipartRequest(MultipartRequest):
    """mpu/create."""

    num_parts: int | None = None


class PartMessage(Request):
    """A part that is in place. Its address, which the client sends back, is of no use any more."""

    part_number: int = 0


class CompleteMultipartRequest(MultipartRequest):
    """mpu/complete."""

    upload_id: str | None = None
    parts: list[PartMessage] = []


class AbortMultipartRequest(MultipartRequest):
    """mpu/abort."""

    upload_id: str | None = None


class PresignedDownloadRequest(RunRequest):
    """artifacts/presigned-download-url."""

    path: str | None = None
    expiration: int | None = None


class PresignedUploadRequest(Request):
    """artifacts/presigned-upload-url. Nothing of it is read: it is always refused."""


class CredentialMessage(msgspec.Struct):
    """Where, and how, a part is put."""

    url: str
    part_number: int
    headers: dict[str, str]


class CreateMultipartAnswer(msgspec.Struct):
    """The addresses of all parts."""

    upload_id: str
    credentials: list[CredentialMessage]


class ProxiedPresignedAnswer(msgspec.Struct, omit_defaults=True):
    """mlflow-artifacts/presigned. Without a size the client streams the file from this server."""

    url: str
    headers: dict[str, str]
    file_size: int | None = None


class PresignedDownloadAnswer(msgspec.Struct):
    """artifacts/presigned-download-url."""

    presigned_url: str
    file_size: int


def file_name_of(local_path: str) -> str:
    """The name of a file on the client's machine, whichever system that runs."""
    kind = PureWindowsPath if _ON_WINDOWS.match(local_path) else PurePosixPath
    return kind(local_path).name


def check_expiration(seconds: int | None) -> None:
    """MLflow's bounds on how long an address is asked to be good.

    Raises:
        MlflowError: it is outside of them.
    """
    if seconds is not None and not 1 <= seconds <= LONGEST_EXPIRATION_SECONDS:
        raise invalid_parameter(
            f"expiration must be between 1 and {LONGEST_EXPIRATION_SECONDS} seconds (got {seconds})."
        )


# --- refusals -------------------------------------------------------------------------------


def no_multipart() -> MlflowError:
    """MLflow's words, at which a client sends the file as one stream."""
    return _refusal("Multipart upload is not supported for the current artifact repository")


def no_presigned_download() -> MlflowError:
    """MLflow's words, at which a client that may streams the file."""
    return _refusal("Presigned download is not supported for the current artifact repository")


def no_presigned_upload() -> MlflowError:
    """MLflow's words."""
    return _refusal("Presigned upload is not supported for the current artifact repository")


def _refusal(words: str) -> MlflowError:
    return MlflowError(ErrorCode.NOT_IMPLEMENTED, words)
