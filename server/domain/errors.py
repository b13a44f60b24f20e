"""Errors a request can end in, each with MLflow's own error code.

The mapping from code to HTTP status is MLflow's (observed on 3.18); `api.errors` applies it.
"""

from enum import StrEnum


class ErrorCode(StrEnum):
    """MLflow's error codes, as they stand in an error body."""

    BAD_REQUEST = "BAD_REQUEST"
    ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
    FEATURE_DISABLED = "FEATURE_DISABLED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    INVALID_PARAMETER_VALUE = "INVALID_PARAMETER_VALUE"
    INVALID_STATE = "INVALID_STATE"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    REQUEST_LIMIT_EXCEEDED = "REQUEST_LIMIT_EXCEEDED"
    RESOURCE_ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
    RESOURCE_CONFLICT = "RESOURCE_CONFLICT"
    RESOURCE_DOES_NOT_EXIST = "RESOURCE_DOES_NOT_EXIST"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    TEMPORARILY_UNAVAILABLE = "TEMPORARILY_UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"


HTTP_STATUS: dict[ErrorCode, int] = {
    ErrorCode.BAD_REQUEST: 400,
    ErrorCode.ENDPOINT_NOT_FOUND: 404,
    # A stock server answers 500, which its clients repeat for minutes.
    ErrorCode.FEATURE_DISABLED: 501,
    ErrorCode.INTERNAL_ERROR: 500,
    ErrorCode.INVALID_PARAMETER_VALUE: 400,
    ErrorCode.INVALID_STATE: 500,
    ErrorCode.NOT_IMPLEMENTED: 501,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.REQUEST_LIMIT_EXCEEDED: 429,
    ErrorCode.RESOURCE_ALREADY_EXISTS: 400,
    ErrorCode.RESOURCE_CONFLICT: 409,
    ErrorCode.RESOURCE_DOES_NOT_EXIST: 404,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.TEMPORARILY_UNAVAILABLE: 503,
    ErrorCode.UNAUTHENTICATED: 401,
}


class OperatorError(Exception):
    """Something that whoever runs the server can mend; the message says what is wrong and what to do."""


class MlflowError(Exception):
    """A request that ends in MLflow's error body instead of an answer.

    `status` overrides the HTTP status that belongs to the code (507 has no code of its own),
    `headers` are added to the answer (`Retry-After`, `WWW-Authenticate`). `may_be_kept` says that a write
    may stand although it is refused.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        may_be_kept: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = HTTP_STATUS[code] if status is None else status
        self.headers = headers or {}
        self.may_be_kept = may_be_kept


def invalid_parameter(message: str) -> MlflowError:
    """The client sent something that can never be accepted."""
    return MlflowError(ErrorCode.INVALID_PARAMETER_VALUE, message)


def does_not_exist(message: str) -> MlflowError:
    """The named thing is not here."""
    return MlflowError(ErrorCode.RESOURCE_DOES_NOT_EXIST, message)


def already_exists(message: str) -> MlflowError:
    """The name is taken."""
    return MlflowError(ErrorCode.RESOURCE_ALREADY_EXISTS, message)
