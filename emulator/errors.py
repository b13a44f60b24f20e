"""Refusals, each in the body its service uses.

Three dialects. The MLflow facade answers in PascalCase with `error_code` beside it [I: bodies quoted
from the live service]. Run History, artifacts and authentication use the same envelope in camelCase
[C: generated `ErrorResponse` models]. Blob storage answers in XML [D: storage REST reference].
"""

import uuid
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from starlette.responses import JSONResponse, Response

JsonObject = dict[str, Any]

ERROR_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


class ServiceError(Exception):
    """A refusal by the workspace; the dialect is chosen where it leaves the process."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "UserError",
        error_code: str | None = None,
        inner_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.error_code = error_code or ERROR_CODES.get(status, "INTERNAL_ERROR")
        self.inner_code = inner_code


class EmptyAnswerError(Exception):
    """A refusal without a body: how the service answers a route it does not have [I]."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class StorageError(Exception):
    """A refusal by blob storage."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def invalid(message: str, *, code: str = "UserError") -> ServiceError:
    """A 400."""
    return ServiceError(400, message, code=code)


def missing(message: str) -> ServiceError:
    """A 404."""
    return ServiceError(404, message)


def over_limit(field: str, limit: int, size: int) -> ServiceError:
    """The quoted form of a size refusal [I: MetricV2Dto.Value/Count, Parameters]."""
    return ServiceError(
        400,
        f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}."
        " See https://aka.ms/azure-machine-learning-limits for service limits documentation.",
        code="ValidationError",
    )


def facade_response(error: ServiceError) -> Response:
    """The MLflow facade's body [I]."""
    body = {
        "Error": {
            "Code": error.code,
            "Severity": None,
            "Message": error.message,
            "MessageFormat": None,
            "MessageParameters": None,
            "ReferenceCode": None,
            "DetailsUri": None,
            "Target": None,
            "Details": [],
            "InnerError": {"Code": error.inner_code, "InnerError": None} if error.inner_code else None,
            "DebugInfo": None,
            "AdditionalInfo": None,
        },
        "Correlation": _correlation(),
        "Environment": "emulator",
        "Location": "emulator",
        "Time": _time(),
        "ComponentName": "mlflow",
        "statusCode": error.status,
        "error_code": error.error_code,
    }
    return JSONResponse(body, error.status)


def service_response(error: ServiceError, component: str) -> Response:
    """The body of Run History, artifacts and authentication [C]."""
    return JSONResponse(service_body(error, component), error.status)


def service_body(error: ServiceError, component: str) -> JsonObject:
    """The body itself, where it is part of a larger answer."""
    return {
        "error": {
            "code": error.code,
            "severity": None,
            "message": error.message,
            "messageFormat": None,
            "messageParameters": None,
            "referenceCode": None,
            "detailsUri": None,
            "target": None,
            "details": [],
            "innerError": {"code": error.inner_code, "innerError": None} if error.inner_code else None,
            "additionalInfo": None,
        },
        "correlation": _correlation(),
        "environment": "emulator",
        "location": "emulator",
        "time": _time(),
        "componentName": component,
    }


def arm_response(error: ServiceError) -> Response:
    """Azure Resource Manager's shorter body [D]."""
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status)


def storage_response(error: StorageError) -> Response:
    """Blob storage's XML body, its code repeated in the header clients look at [D]."""
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}\n"
        f"RequestId:{uuid.uuid4()}\nTime:{_time()}</Message></Error>"
    )
    return Response(
        body,
        error.status,
        {"x-ms-error-code": error.code, "x-ms-request-id": str(uuid.uuid4())},
        "application/xml",
    )


def _correlation() -> dict[str, str]:
    return {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}


def _time() -> str:
    return datetime.now(UTC).isoformat()
