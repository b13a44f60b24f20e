"""From bytes to messages, with MLflow's words when they do not fit."""

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.errors import MlflowError
from server.protocol.wire import Decoder, Request, RunRequest, encode, encode_page


class _Inner(msgspec.Struct):
    name: str
    size: int = 0


class _Message(Request):
    key: str | None = None
    step: int | None = None
    value: float | None = None
    items: list[_Inner] = msgspec.field(default_factory=list)
    names: list[str] = msgspec.field(default_factory=list)


_decoder = Decoder(_Message)


def _refusal(body: bytes) -> str:
    with pytest.raises(MlflowError) as caught:
        _decoder.from_body(body)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'"{}"', b"  {}  ", b'{"unknown": 1}', b'{"key": null, "items": null}']
)
def test_what_says_nothing_is_an_empty_message(body: bytes) -> None:
    """Empty, wrapped, unknown and null fields are all the same."""
    assert _decoder.from_body(body) == _Message()


def test_numbers_may_come_as_strings() -> None:
    """JavaScript and protobuf clients send int64 as text."""
    message = _decoder.from_body(b'{"step": "9223372036854775807", "value": "1.5"}')
    assert (message.step, message.value) == (2**63 - 1, 1.5)


def test_json_inside_a_string_is_unwrapped() -> None:
    """Clients of 1.x encode twice; escapes inside survive."""
    inner = json.dumps({"key": 'a"b\\é'})
    assert _decoder.from_body(json.dumps(inner).encode()).key == 'a"b\\é'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"key": 31}', "Invalid value 31 for parameter 'key' supplied:  Hint: Value was of type 'int'."),
        (
            b'{"step": "x"}',
            "Invalid value \"x\" for parameter 'step' supplied:  Hint: Value was of type 'str'.",
        ),
        (
            b'{"step": 1.5}',
            "Invalid value 1.5 for parameter 'step' supplied:  Hint: Value was of type 'float'.",
        ),
        (
            b'{"items": {}}',
            "Invalid value {} for parameter 'items' supplied:  Hint: Value was of type 'dict'.",
        ),
        (b'{"items": [{}]}', "Missing value for required parameter 'items[0].name'."),
        (b'{"items": [{"name": null}]}', "Missing value for required parameter 'items[0].name'."),
        (
            b'{"items": [{"name": "a"}, {"name": 1}]}',
            "Invalid value 1 for parameter 'items[1].name' supplied:  H",
        ),
        (b'{"key": "a\\u0000b"}', 'Invalid value "a\\u0000b" supplied: the text holds a NUL'),
        (
            b'{"items": [{"name": "\\u0000"}], "key": null}',
            'Invalid value "\\u0000" supplied: the text holds a NUL',
        ),
        (b"{", "The request body is not valid JSON"),
        (b'"{"', "The request body is not valid JSON"),
        (b'"\\ud800"', "The request body is not valid JSON"),
        (b'"\x80"', "The request body is not valid JSON"),
        (b'{"key": "\x80"}', "The request body is not valid JSON"),
    ],
)
def test_what_does_not_fit_is_named(body: bytes, message: str) -> None:
    """The refusal shows the value and its place, as a stock server's does."""
    assert _refusal(body).startswith(message)


def test_a_backslash_before_u0000_is_no_nul() -> None:
    """Text that only shows an escape is kept."""
    assert _decoder.from_body(b'{"key": "\\\\u0000"}').key == "\\u0000"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_message_or_a_refusal(body: bytes) -> None:
    """Decoding never fails in a way nobody foresaw."""
    with suppress(MlflowError):
        _decoder.from_body(body)


@given(st.text(max_size=60))
def test_any_query_is_a_message_or_a_refusal(query: str) -> None:
    """Whatever stands behind the question mark."""
    with suppress(MlflowError):
        _decoder.from_query(query)


def test_a_query_repeats_lists_and_what_is_the_same() -> None:
    """`names=a&names=b` is a list; `key=a&key=a` is a; an unknown field may say anything."""
    message = _decoder.from_query("names=a&names=b&key=a&key=a&step=5&empty&other=1&other=2")
    assert (message.names, message.key, message.step) == (["a", "b"], "a", 5)


def test_a_query_that_says_two_things_is_refused() -> None:
    """Whoever judged it on the way may have believed the other one."""
    with pytest.raises(MlflowError, match="several values for 'key'"):
        _decoder.from_query("key=a&key=b")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"run_id": "a"}, "a"),
        ({"run_uuid": "a"}, "a"),
        ({"run_id": "a", "run_uuid": "a"}, "a"),
        ({"run_id": "", "run_uuid": "a"}, "a"),
        ({"run_id": "a", "run_uuid": "b"}, None),
        ({}, None),
    ],
)
def test_a_run_is_named_once(fields: dict[str, str], expected: str | None) -> None:
    """Two names that differ, and none, are refused."""
    request = RunRequest(**fields)
    if expected is None:
        with pytest.raises(MlflowError):
            _ = request.named_run
    else:
        assert request.named_run == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_what_is_encoded_is_decoded_again(text: str) -> None:
    """Any text passes both ways."""
    assert _decoder.from_body(encode({"key": text})).key == text


@pytest.mark.parametrize("token", [None, 't"oken'])
@pytest.mark.parametrize("items", [[], [{"a": "ü"}], [{"a": 1}, {"b": [2]}]])
def test_a_page_is_encoded_like_any_message_without_what_is_empty(
    items: list[object], token: str | None
) -> None:
    """Item by item or at once, the JSON says the same."""
    expected = ({"items": items} if items else {}) | ({} if token is None else {"next_page_token": token})
    assert bytes(encode_page("items", items, token)) == encode(expected)
