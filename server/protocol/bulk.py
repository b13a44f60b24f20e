"""How many things a body may hold, judged before anything is made of it.

A body's size says little about what reading it costs: two bytes can stand for an object of a hundred, and a
compressed body of 60 kB for five gigabytes of them. So the things are counted in the bytes. Small bodies are
let through uncounted: they cannot become large enough to matter.
"""

from typing import Any

from server.domain.errors import ErrorCode, MlflowError

MOST_CONTAINERS = 250_000
"""Lists, objects or messages in one body. A stock client's largest have some ten thousand."""
MOST_VALUES = 1_000_000
MOST_FIELDS = 2_000_000
SMALL_BYTES = 512 * 1024
_LONGEST_VARINT = 10


def check_json(body: bytes) -> None:
    """Refuse a JSON text of too many values. What stands in strings counts too: nothing is parsed here.

    Raises:
        MlflowError: there are too many (413).
    """
    if len(body) <= SMALL_BYTES:
        return
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS or body.count(b",") > MOST_VALUES:
        raise _too_many()


def check_protobuf(body: bytes, descriptor: Any) -> None:
    """Refuse a protobuf message of too many messages within messages.

    Bytes that are not such a message are let through: the parser says so better.

    Args:
        body: The encoded message.
        descriptor: Its type (`google.protobuf.descriptor.Descriptor`).

    Raises:
        MlflowError: there are too many (413).
    """
    if len(body) <= SMALL_BYTES:
        return
    try:
        _count_messages(body, descriptor)
    except IndexError:
        return


def _count_messages(body: bytes, descriptor: Any) -> None:
    messages = fields = 0
    nested_types: dict[Any, dict[int, Any]] = {}
    waiting = [(descriptor, 0, len(body))]
    while waiting:
        kind, position, end = waiting.pop()
        if kind.full_name not in nested_types:
            nested_types[kind.full_name] = {
                field.number: field.message_type for field in kind.fields if field.message_type is not None
            }
        nested = nested_types[kind.full_name]
        while position < end:
            fields += 1
            if messages > MOST_CONTAINERS or fields > MOST_FIELDS:
                raise _too_many()
            tag, position = _varint(body, position)
            match tag & 7:  # how the field is written down
                case 0:
                    _, position = _varint(body, position)
                case 1:
                    position += 8
                case 5:
                    position += 4
                case 2:  # bytes, a text or a message, behind its length
                    length, position = _varint(body, position)
                    inner = nested.get(tag >> 3)
                    if inner is not None:
                        messages += 1
                        waiting.append((inner, position, min(position + length, end)))
                    position += length
                case _:  # a group: nobody writes these any more, and the parser keeps them as bytes
                    return


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position behind it."""
    byte = body[position]
    if byte < 0x80:
        return byte, position + 1
    value = shift = 0
    for index in range(position, position + _LONGEST_VARINT):
        byte = body[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise IndexError("no varint ends here")


def _too_many() -> MlflowError:
    return MlflowError(
        ErrorCode.INVALID_PARAMETER_VALUE, "The request body holds too many values.", status=413
    )
