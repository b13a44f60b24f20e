"""Page tokens: MLflow's own form, base64 over `{"offset": N}`.

Clients hand tokens back unread, so a token taken from a stock server goes on here and the other way
round. The token of a long list also says behind what the next page begins, so that nothing is counted over.
"""

import base64
import binascii
import json

from server.domain.errors import invalid_parameter

_LARGEST_OFFSET = 2**63 - 1
_LARGEST_DOUBLE = 1.7976931348623157e308
_POINT_FIELDS = 4


def encode_offset(offset: int) -> str:
    """The token that makes the next request start at `offset`."""
    return _encode({"offset": offset})


def encode_point(offset: int, after: tuple[int, int, float, int]) -> str:
    """The token that makes the next request start behind a point (step, timestamp_ms, value, is_nan)."""
    return _encode({"offset": offset, "after": after})


def _encode(content: dict[str, object]) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def decode_offset(token: str | None) -> int:
    """Where the page starts; no token is the first page.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the token is none of ours.
    """
    if not token:
        return 0
    content = _content(token)
    # MLflow never hands out offset 0 and refuses it.
    if not isinstance(content, dict) or not content.get("offset"):
        raise invalid_parameter(f"Invalid page token, parsed value={content}")
    return _offset(content["offset"])


def decode_point(token: str | None) -> tuple[int, int, float, int] | None:
    """The point behind which the page begins; None where the token does not say, and `decode_offset` does.

    Raises:
        MlflowError: `INVALID_PARAMETER_VALUE` when the token is none of ours.
    """
    content = _content(token) if token else None
    after = content.get("after") if isinstance(content, dict) else None
    if after is None:
        return None
    if not _is_point(after):
        raise invalid_parameter(f"Invalid page token, parsed value={content}")
    step, timestamp_ms, value, is_nan = after
    return step, timestamp_ms, float(value), is_nan


def _is_point(value: object) -> bool:
    if not isinstance(value, list) or len(value) != _POINT_FIELDS:
        return False
    step, timestamp_ms, number, is_nan = value
    return (
        all(
            type(item) is int and -_LARGEST_OFFSET - 1 <= item <= _LARGEST_OFFSET
            for item in (step, timestamp_ms, is_nan)
        )
        and type(number) in (int, float)
        and abs(number) <= _LARGEST_DOUBLE
    )


def _content(token: str) -> object:
    try:
        decoded = base64.b64decode(token)
    except (binascii.Error, ValueError) as error:
        raise invalid_parameter("Invalid page token, could not base64-decode") from error
    try:
        content: object = json.loads(decoded)
    except (ValueError, RecursionError) as error:
        raise invalid_parameter(f"Invalid page token, decoded value={decoded!r}") from error
    return content


def _offset(value: object) -> int:
    if not isinstance(value, int | str):
        raise invalid_parameter(f"Invalid page token, not stringable {value}")
    try:
        offset = int(value)
    except ValueError as error:
        raise invalid_parameter(f"Invalid page token, not stringable {value}") from error
    if not 0 <= offset <= _LARGEST_OFFSET:
        raise invalid_parameter(f"Invalid page token, parsed value={value}")
    return offset
