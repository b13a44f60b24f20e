"""Operations as bytes, and back."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.operations import CreateRun, LogParam, Operation
from server.journal.codec import CorruptEntryError, decode_operation, encode_operation

_operations = st.one_of([st.from_type(type_) for type_ in get_args(Operation)])


def _fits(value: Any) -> bool:
    """What the API lets through: int64 and text without lone surrogates."""
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        return False
    return value == value


@given(_operations.filter(_fits))
def test_every_operation_comes_back_as_it_was_written(operation: Operation) -> None:
    """Kind and payload are all that is needed."""
    assert decode_operation(*encode_operation(operation)) == operation


_RELEASED_KINDS = [
    "CreateExperiment",
    "DeleteExperiment",
    "RestoreExperiment",
    "SetExperimentTag",
    "CreateRun",
    "UpdateRun",
    "DeleteRun",
    "RestoreRun",
    "LogParam",
    "SetTag",
    "DeleteTag",
    "LogPoint",
    "UploadArtifact",
    "DeleteArtifact",
    "CreateRegisteredModel",
    "UpdateRegisteredModel",
    "SetRegisteredModelTag",
    "DeleteRegisteredModelTag",
    "CreateModelVersion",
    "UpdateModelVersion",
    "TransitionModelVersion",
    "SetModelVersionTag",
    "DeleteModelVersionTag",
    "DeleteModelVersion",
]


def test_every_kind_that_was_ever_journaled_is_still_known() -> None:
    """A class is not renamed: journals written by released versions name it."""
    assert set(_RELEASED_KINDS) <= {type_.__name__ for type_ in get_args(Operation)}


def test_a_field_that_an_older_version_did_not_write_gets_its_default() -> None:
    """An old journal row is still understood."""
    payload = msgspec.msgpack.encode({"name": "n", "user_id": "", "start_time_ms": 1, "parent_run_id": None})
    assert decode_operation("CreateRun", payload) == CreateRun("n", "", 1, None, {})


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("NoSuchKind", b""),
        ("LogParam", b""),
        ("LogParam", b"\xc1"),
        ("LogParam", msgspec.msgpack.encode({"key": 1, "value": "x"})),
        ("LogParam", msgspec.msgpack.encode({"key": "x"})),
    ],
)
def test_a_row_that_is_not_what_was_written_is_told(kind: str, payload: bytes) -> None:
    """A spoilt row is a named error, never a wrong operation."""
    with pytest.raises(CorruptEntryError, match=kind):
        decode_operation(kind, payload)


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    """A journal survives going back one version."""
    payload = msgspec.msgpack.encode({"key": "k", "value": "v", "from_the_future": 1})
    assert decode_operation("LogParam", payload) == LogParam("k", "v")
