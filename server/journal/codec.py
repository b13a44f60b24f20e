"""Operations as bytes, and back. A kind is the operation's class name, for ever.

A payload is a mark, a CRC-32 over kind and body, and the body: the operation in MessagePack. Rows of
schema 0001 are the body alone; the mark is a byte that no MessagePack value begins with.
"""

import zlib
from typing import Any, cast, get_args

import msgspec

from server.domain.operations import Operation

_TYPES: dict[str, type] = {type_.__name__: type_ for type_ in get_args(Operation)}
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(type_) for name, type_ in _TYPES.items()
}
_MARK = b"\xc1"
_BODY_START = 5
_kind_checksums = {name: zlib.crc32(name.encode()) for name in _TYPES}


class CorruptEntryError(Exception):
    """A journal row cannot be read back."""


def encode_operation(operation: Operation) -> tuple[str, bytes]:
    """The kind and the payload of an operation."""
    kind = type(operation).__name__
    body = _encoder.encode(operation)
    return kind, _MARK + zlib.crc32(body, _kind_checksums[kind]).to_bytes(4, "big") + body


def decode_operation(kind: str, payload: bytes) -> Operation:
    """The operation that was encoded.

    Raises:
        CorruptEntryError: the row is not what was written.
    """
    try:
        return cast(Operation, _decoders[kind].decode(_checked_body(kind, payload)))
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntryError(f"Journal entry of kind {kind!r} cannot be decoded: {error}") from error


def encode_unreadable(values: dict[str, Any]) -> bytes:
    """A payload that keeps the values of a row that cannot be read back, to be shown: it is no operation."""
    return _encoder.encode({"unreadable": values})


def describe_payload(kind: str, payload: bytes) -> dict[str, Any]:
    """All that a payload holds, for people: what cannot be read back too, as far as it goes."""
    try:
        return cast(dict[str, Any], msgspec.to_builtins(decode_operation(kind, payload)))
    except CorruptEntryError as error:
        try:
            held = msgspec.msgpack.decode(payload.removeprefix(_MARK + payload[1:_BODY_START]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            held = payload.hex()
        return {"fault": str(error), "payload": msgspec.to_builtins(held, str_keys=True)}


def _checked_body(kind: str, payload: bytes) -> bytes:
    if payload[:1] != _MARK:
        return payload
    body = payload[_BODY_START:]
    if payload[1:_BODY_START] != zlib.crc32(body, _kind_checksums[kind]).to_bytes(4, "big"):
        raise CorruptEntryError(f"Journal entry of kind {kind!r} is not what was written (checksum).")
    return body
