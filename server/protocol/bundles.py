"""What a bundle of experiments holds, and the messages that export and import it (`docs/bundles.md`).

A bundle is a sealed tar. Its members are numbered lists of parts, in MessagePack, in the order in which they
are to be applied; one that ends with a `FilePart` is followed by a member with the bytes of that file.
"""

import re
from typing import TypeAlias

import msgspec

from server.protocol.wire import Request

FORMAT = 1
HEADER = "bundle.json"
LARGEST_PARTS_BYTES = 16 * 1024 * 1024
ID = re.compile(r"[A-Za-z0-9_-]{1,250}")
_PARTS = re.compile(r"parts/([0-9]{8})")
_FILE = re.compile(r"files/([0-9]{8})")


class ExperimentName(msgspec.Struct, frozen=True):
    """An experiment of a bundle: its id where it was exported, and its name."""

    experiment_id: int
    name: str


class Header(msgspec.Struct, frozen=True):
    """Where a bundle comes from."""

    format: int
    product_version: str
    bundle_id: str
    created_at_ms: int
    experiments: list[ExperimentName]


# --- parts ----------------------------------------------------------------------------------


class ExperimentPart(msgspec.Struct, tag="experiment", frozen=True):
    """An experiment without its runs."""

    experiment_id: int
    name: str
    tags: dict[str, str]
    creation_time_ms: int


class DatasetPart(msgspec.Struct, frozen=True):
    """A dataset that a run used, with the tags of that use."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None
    profile: str | None
    tags: list[tuple[str, str]]


class RunPart(msgspec.Struct, tag="run", frozen=True):
    """A run as it was created, and its tags as they are now."""

    run_id: str
    experiment_id: int
    name: str
    user_id: str
    start_time_ms: int | None
    tags: dict[str, str]
    datasets: list[DatasetPart]
    input_models: list[str]
    output_models: list[tuple[str, int]]


class ParamsPart(msgspec.Struct, tag="params", frozen=True):
    """Some params of a run."""

    run_id: str
    params: list[tuple[str, str]]


class PointsPart(msgspec.Struct, tag="points", frozen=True):
    """Some points of one metric: step, timestamp in ms, value (0 for NaN), whether it is NaN."""

    run_id: str
    key: str
    points: list[tuple[int, int, float, bool]]


class FilePart(msgspec.Struct, tag="file", frozen=True):
    """A file of a run's folder, or of a logged model's. Its bytes are the next member."""

    owner_id: str
    is_of_model: bool
    path: str
    size_bytes: int
    md5: bytes


class ModelPart(msgspec.Struct, tag="model", frozen=True):
    """A logged model without its metrics."""

    model_id: str
    experiment_id: int
    name: str
    status: str
    status_message: str | None
    model_type: str | None
    source_run_id: str | None
    creation_timestamp_ms: int
    last_updated_timestamp_ms: int
    params: dict[str, str]
    tags: dict[str, str]


class ModelPoint(msgspec.Struct, array_like=True, frozen=True):
    """A metric point of a logged model, and the run that measured it."""

    run_id: str
    key: str
    step: int
    timestamp_ms: int
    value: float
    is_nan: bool
    dataset_name: str | None
    dataset_digest: str | None


class ModelPointsPart(msgspec.Struct, tag="model_points", frozen=True):
    """Some metric points of a logged model."""

    model_id: str
    points: list[ModelPoint]


class EndPart(msgspec.Struct, tag="end", frozen=True):
    """How a run stands. It comes after the run's files."""

    run_id: str
    status: str
    end_time_ms: int | None


Part: TypeAlias = (
    ExperimentPart | RunPart | ParamsPart | PointsPart | FilePart | ModelPart | ModelPointsPart | EndPart
)

_decoder = msgspec.msgpack.Decoder(list[Part])
_encoder = msgspec.msgpack.Encoder()


def encode_parts(parts: list[Part]) -> bytes:
    """Parts as a member holds them."""
    return _encoder.encode(parts)


def decode_parts(content: bytes) -> list[Part]:
    """The parts of a member.

    Raises:
        msgspec.MsgspecError: it holds something else, or a file that is not its last part.
    """
    parts = _decoder.decode(content)
    if any(isinstance(part, FilePart) for part in parts[:-1]):
        raise msgspec.ValidationError("a file is not the last part of its list")
    return parts


def parts_member(number: int) -> str:
    """The name of a list of parts."""
    return f"parts/{number:08}"


def file_member(number: int) -> str:
    """The name of the file that belongs to the list of that number."""
    return f"files/{number:08}"


def number_of_parts(name: str) -> int | None:
    """The number of a list of parts, if the member is one."""
    match = _PARTS.fullmatch(name)
    return int(match[1]) if match else None


def number_of_file(name: str) -> int | None:
    """The number of the list that a file belongs to, if the member is a file."""
    match = _FILE.fullmatch(name)
    return int(match[1]) if match else None


# --- messages -------------------------------------------------------------------------------


class ExportRequest(Request):
    """export, POST: the experiments, by name or id."""

    experiments: list[str]


class BeginImportRequest(Request):
    """import, POST: what is about to be imported."""

    bundle_id: str
    experiments: list[str]


class BeginImportAnswer(msgspec.Struct):
    """import, POST. `next_part` is the number to go on with."""

    next_part: int


class ImportPartAnswer(msgspec.Struct):
    """import/{bundle_id}/{number}, POST. Where the last part's file goes; none when it is there already."""

    upload_to: str | None = None
