"""The name of each request: in its answer, in every log line about it, and in its error.

A client's own `X-Request-Id` is kept, if it is one; else the request gets one that no other has.
"""

import re
import secrets
from collections.abc import Mapping
from itertools import count

import structlog

HEADER = b"x-request-id"

_GIVEN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_OWN = secrets.token_hex(6)
_numbers = count(1)


def begin_request(head: Mapping[bytes, bytes]) -> str:
    """The request's id; log lines of the running task have it from here on."""
    given = head.get(HEADER)
    if given is not None and _GIVEN.fullmatch(given):
        request_id = given.decode()
    else:
        request_id = f"{_OWN}-{next(_numbers):x}"
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id
