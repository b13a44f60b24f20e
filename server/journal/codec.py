"""Operations as bytes, and back. A kind is the operation's class name, for ever."""

from typing import Any, cast, get_args

import msgspec

from server.domain.operations import Operation

_TYPES: dict[str, type] = {type_.__name__: type_ for type_ in get_args(Operation)}
_encoder = msgspec.msgpack.Encoder()
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    name: msgspec.msgpack.Decoder(type_) for name, type_ in _TYPES.items()
}


class CorruptEntryError(Exception):
    """A journal row cannot be read back."""


def encode_operation(operation: Operation) -> tuple[str, bytes]:
    """The kind and the payload of an operation."""
    return type(operation).__name__, _encoder.encode(operation)


def decode_operation(kind: str, payload: bytes) -> Operation:
    """The operation that was encoded.

    Raises:
        CorruptEntryError: the row is not what was written.
    """
    try:
        return cast(Operation, _decoders[kind].decode(payload))
    except (KeyError, msgspec.MsgspecError) as error:
        raise CorruptEntryError(f"Journal entry of kind {kind!r} cannot be decoded: {error}") from error
