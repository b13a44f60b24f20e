"""Page tokens: MLflow's own form, base64 over `{"offset": N}`.

Clients hand tokens back unread, so a token taken from a stock server goes on here and the other way
round.
"""

import base64
import binascii
import json

from server.domain.errors import invalid_parameter

_LARGEST_OFFSET = 2**63 - 1


def encode_offset(offset: int) -> str:
    """The token that makes the next request start at `offset`."""
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


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
