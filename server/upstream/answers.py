"""From decoded JSON to typed answers. What does not fit is a failure, never a `KeyError`."""

from typing import Any, TypeVar

import msgspec

from server.upstream.failures import unreadable_answer

T = TypeVar("T")


def read_answer(answer: Any, kind: type[T], *, is_repeatable: bool) -> T:
    """`answer` as `kind`; numbers may come as strings, as protobuf's JSON writes 64-bit integers."""
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError as error:
        raise unreadable_answer(f"not the answer we know: {error}", is_repeatable=is_repeatable) from error
