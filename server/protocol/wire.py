"""From bytes to messages and back, with MLflow's words when they do not fit.

A message is a `msgspec.Struct`. Unknown fields are ignored and numbers may come as strings, as a
stock server takes them. A JSON string that holds JSON is accepted (clients of 1.x send it), and
a field that is null counts as absent.
"""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

from server.domain.errors import MlflowError, invalid_parameter
from server.protocol.bulk import check_json

M = TypeVar("M", bound=msgspec.Struct)

_SEE_DOCS = "See the API docs for more information about request parameters."
_PATH = re.compile(r" - at `\$([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_encoder = msgspec.json.Encoder()
_MAX_QUERY_FIELDS = 1000
_ESCAPED_NUL = b"\\u0000"
# A letter of a field's name can be written as one of these.
_ESCAPED_ASCII = re.compile(rb"\\u00[0-7]")


class Request(msgspec.Struct, kw_only=True):
    """A message that comes from a client."""


class RunRequest(Request, kw_only=True):
    """A message about one run, named by `run_id` or, by older clients, by `run_uuid`.

    Both name the same run or the message is refused.
    """

    run_id: str = ""
    run_uuid: str = ""

    @property
    def named_run(self) -> str:
        """The run's id."""
        if self.run_id and self.run_uuid and self.run_id != self.run_uuid:
            raise invalid_parameter("'run_id' and 'run_uuid' name different runs.")
        name = self.run_id or self.run_uuid
        if not name:
            raise missing_parameter("run_id")
        return name


def missing_parameter(name: str) -> MlflowError:
    """A required field is absent or empty."""
    return invalid_parameter(f"Missing value for required parameter '{name}'. {_SEE_DOCS}")


def require(name: str, value: str | None) -> str:
    """The value, unless it is absent or empty."""
    if not value:
        raise missing_parameter(name)
    return value


class Decoder:
    """Decodes messages of one type from a JSON body or from a query string."""

    def __init__(self, message_type: type[Any]) -> None:
        self.message_type = message_type
        self._decoder = msgspec.json.Decoder(message_type, strict=False)
        self._lists = _list_fields(message_type)
        self._fields = {field.encode_name for field in msgspec.structs.fields(message_type)}
        # Lists name nothing that somebody could have judged, and large bodies are mostly lists.
        self._told_once = [f'"{name}"'.encode() for name in self._fields - self._lists]

    def from_body(self, body: bytes) -> Any:
        """The message in a request's body; an empty body is an empty message."""
        if not body:
            body = b"{}"
        if body[:1] == b'"':
            body = _unwrap(body)
        check_json(body)
        has_escapes = b"\\" in body
        if self._may_repeat_fields(body, has_escapes=has_escapes):
            _refuse_repeated_fields(body)
        try:
            message = self._decoder.decode(body)
            if has_escapes and _ESCAPED_NUL in body:
                _refuse_nul(msgspec.to_builtins(message))
            return message
        except msgspec.ValidationError as error:
            return self._without_nulls(body, error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid_parameter(f"The request body is not valid JSON: {error}") from error

    def _may_repeat_fields(self, body: bytes, *, has_escapes: bool) -> bool:
        """Whether it is worth a closer look. Most bodies are told apart by this alone, which costs little."""
        for name in self._told_once:
            if body.count(name) > 1:
                return True
        return has_escapes and _ESCAPED_ASCII.search(body) is not None

    def _without_nulls(self, body: bytes, error: msgspec.ValidationError) -> Any:
        """The message once more, without its fields that are null."""
        try:
            fields = msgspec.json.decode(body)
            stripped = _strip_nulls(fields)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as malformed:
            raise invalid_parameter(f"The request body is not valid JSON: {malformed}") from malformed
        if stripped == fields:
            raise _explain(error, body) from error
        _refuse_nul(stripped)
        try:
            return msgspec.convert(stripped, self.message_type, strict=False)
        except msgspec.ValidationError as other:
            raise _explain(other, _encoder.encode(stripped)) from other

    def from_query(self, query: str) -> Any:
        """The message in a query string. A repeated key is a list, or says the same each time."""
        try:
            pairs = parse_qs(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError as error:
            raise invalid_parameter("The query string has too many fields.") from error
        for key, values in pairs.items():
            if key in self._fields and key not in self._lists and len(set(values)) > 1:
                raise invalid_parameter(f"The query string gives several values for '{key}'.")
        fields = {key: values if key in self._lists else values[0] for key, values in pairs.items()}
        if "%00" in query:
            _refuse_nul(fields)
        try:
            return msgspec.convert(fields, self.message_type, strict=False)
        except msgspec.ValidationError as error:
            raise _explain(error, _encoder.encode(fields)) from error


def encode(message: Any) -> bytes:
    """A message as JSON."""
    return _encoder.encode(message)


def encode_page(field: str, items: Iterable[Any], next_page_token: str | None) -> bytearray:
    """`{field: items, "next_page_token": …}` as JSON, without what is empty.

    Item by item into one buffer: nothing is copied, and other threads get their turn meanwhile.
    """
    body = bytearray(b'{"%b":[' % field.encode())
    before_items = len(body)
    for item in items:
        _encoder.encode_into(item, body, -1)
        body += b","
    if len(body) > before_items:
        body[-1:] = b"],"
    else:
        del body[1:]
    if next_page_token is not None:
        body += b'"next_page_token":%b,' % _encoder.encode(next_page_token)
    if len(body) > 1:
        del body[-1:]
    body += b"}"
    return body


def _list_fields(message_type: type[Any]) -> frozenset[str]:
    return frozenset(
        field.encode_name for field in msgspec.structs.fields(message_type) if "list" in str(field.type)
    )


def _strip_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strip_nulls(field) for key, field in value.items() if field is not None}
    if isinstance(value, list):
        return [_strip_nulls(item) for item in value]
    return value


def _refuse_nul(value: Any) -> None:
    """Refuse text that Postgres can neither hold nor look for.

    Raises:
        MlflowError: there is a NUL in it somewhere.
    """
    if isinstance(value, str):
        if "\0" in value:
            shown = json.dumps(value[:200])
            raise invalid_parameter(
                f"Invalid value {shown} supplied: the text holds a NUL, which cannot be stored."
            )
    elif isinstance(value, dict):
        for field in value.values():
            _refuse_nul(field)
    elif isinstance(value, list):
        for item in value:
            _refuse_nul(item)


def _refuse_repeated_fields(body: bytes) -> None:
    """Refuse an object that names a field twice: others on the way may have believed the other one.

    Raises:
        MlflowError: some object in the body does.
    """
    with suppress(ValueError, RecursionError):  # not JSON, which the decoder says better
        json.loads(body, object_pairs_hook=_fields_once)


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid_parameter("The request body names a field twice.")
    return fields


def _unwrap(body: bytes) -> bytes:
    try:
        return msgspec.json.decode(body, type=str).encode()
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise invalid_parameter("The request body is not valid JSON.") from error


def _explain(error: msgspec.ValidationError, body: bytes) -> MlflowError:
    """MLflow's message for a field that is missing or of the wrong type."""
    text = str(error)
    path_match = _PATH.search(text)
    path = path_match.group(1).lstrip(".") if path_match else ""
    if missing := _MISSING.search(text):
        name = f"{path}.{missing.group(1)}" if path else missing.group(1)
        return missing_parameter(name)
    value = _value_at(body, path)
    if value is None:
        return missing_parameter(path or "body")
    shown = msgspec.json.encode(value).decode()[:200]
    hint = f"Hint: Value was of type '{type(value).__name__}'."
    return invalid_parameter(f"Invalid value {shown} for parameter '{path}' supplied:  {hint} {_SEE_DOCS}")


def _value_at(body: bytes, path: str) -> Any:
    try:
        value: Any = msgspec.json.decode(body)
        for part in re.findall(r"[^.\[\]]+", path):
            value = value[int(part)] if isinstance(value, list) else value[part]
    except (msgspec.MsgspecError, KeyError, IndexError, ValueError, TypeError):
        return "…"
    return value
