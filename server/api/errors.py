"""MLflow's error body, and the answer to anything that goes wrong."""

from typing import Any

import structlog
from starlette.types import Send

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.wire import encode

log = structlog.get_logger(__name__)


def error_body(error: MlflowError) -> bytes:
    """`{"error_code": …, "message": …}`."""
    return encode({"error_code": error.code.value, "message": error.message})


def as_mlflow_error(error: Exception, *, path: str, request_id: str) -> MlflowError:
    """What a client sees of an error. One that nobody foresaw is logged and tells nothing."""
    if isinstance(error, MlflowError):
        return error
    log.error("request_failed", path=path, request_id=request_id, exc_info=error)
    return MlflowError(
        ErrorCode.INTERNAL_ERROR, f"The server failed on this request; its log has it under {request_id}."
    )


async def send_error(send: Send, error: MlflowError, *, with_body: bool = True) -> None:
    """Answer with an error."""
    await send_json(send, error_body(error), status=error.status, headers=error.headers, with_body=with_body)


async def send_json(
    send: Send,
    body: bytes | bytearray,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    content_type: bytes = b"application/json",
    with_body: bool = True,
) -> None:
    """Answer with a whole body."""
    raw: list[tuple[bytes, bytes]] = [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    if headers:
        raw.extend(
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        )
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": raw}
    await send(start)
    await send({"type": "http.response.body", "body": body if with_body else b""})
