"""Operations as bytes, and back."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.operations import CreateRun, LogParam, Operation
from server.journal.codec import (
    CorruptEntryError,
    decode_operation,
    describe_payload,
    encode_operation,
    encode_unreadable,
)

_operations = st.one_of([st.from_type(type_) for type_ in get_args(Operation)])


def _fits(value: Any) -> bool:
    """What the API lets through: int64 and text without lone surrogates."""
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        return False
    return True


@given(_operations.filter(_fits))
def test_every_operation_comes_back_as_it_was_written(operation: Operation) -> None:
    """Kind and payload are all that is needed; a value that is no number, or a negative zero, is kept too."""
    # As text, for a NaN equals nothing, itself included.
    assert repr(decode_operation(*encode_operation(operation))) == repr(operation)


@given(_operations.filter(_fits), st.data())
def test_a_flipped_bit_is_told(operation: Operation, data: st.DataObject) -> None:
    """Anywhere in the kind or the payload, it makes an unreadable row and never another operation."""
    kind, payload = encode_operation(operation)
    row = bytearray(kind.encode() + payload)
    bit = data.draw(st.integers(0, 8 * len(row) - 1))
    row[bit // 8] ^= 1 << bit % 8
    flipped = row[: len(kind)].decode(errors="replace")
    with pytest.raises(CorruptEntryError):
        decode_operation(flipped, bytes(row[len(kind) :]))


def test_rows_of_the_first_schema_have_no_checksum() -> None:
    """They are read as they were written."""
    assert decode_operation("LogParam", msgspec.msgpack.encode({"key": "k", "value": "v"})) == LogParam(
        "k", "v"
    )


@given(_operations.filter(_fits))
def test_a_payload_can_be_shown(operation: Operation) -> None:
    """As JSON, with the operation's own fields."""
    shown = describe_payload(*encode_operation(operation))
    assert set(shown) == set(operation.__slots__)
    msgspec.json.encode(shown)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\xc1abcd", b"\xff\xfe", encode_unreadable({"step": "?"})]
)
def test_what_cannot_be_read_can_be_shown_too(payload: bytes) -> None:
    """With what is wrong, and what is left of it."""
    shown = describe_payload("LogPoint", payload)
    assert set(shown) == {"fault", "payload"}
    msgspec.json.encode(shown)


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
    "DeliverOverflow",
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
