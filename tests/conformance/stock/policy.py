"""Which fields may differ from a stock server's, how, and why. A field that is not here must match."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

ABSENT = "<absent>"
FAILED = "raised RetryError"
"""What a client says of an answer with status 500."""


class How(StrEnum):
    """How a field is compared. Without a rule it must match."""

    THESE_VALUES = "these values"
    SAME_TYPE = "same type"
    ANY_ORDER = "any order"
    IGNORE = "not compared"


@dataclass(frozen=True, slots=True)
class Rule:
    """A field of a route or an entity: `*` is anything within a step of its path, `**` any steps.

    With `here` and `stock` it allows exactly a difference between values like these.
    """

    where: str
    field: str
    how: How
    reason: str
    flow: str = "*"
    here: str = "*"
    stock: str = "*"

    def covers(self, flow: str, where: str, path: tuple[str, ...]) -> bool:
        """Whether it is about this field."""
        about = fnmatchcase(flow, self.flow) and fnmatchcase(where, self.where)
        return about and _fits(path, tuple(self.field.split("/")))

    def allows(self, proxy: Any, stock: Any) -> bool:
        """Whether two values may differ like this."""
        if self.how is How.SAME_TYPE:
            return type(proxy) is type(stock) and ABSENT not in (proxy, stock)
        return _like(proxy, self.here) and _like(stock, self.stock)


def differs(where: str, field: str, reason: str, *, here: str = "*", stock: str = "*") -> Rule:
    """A rule about values."""
    return Rule(where, field, How.THESE_VALUES, reason, here=here, stock=stock)


def _only(flow: str, where: str, field: str, reason: str) -> Rule:
    """A rule about what one flow finds here and does not find there."""
    return Rule(where, field, How.THESE_VALUES, reason, flow, stock=ABSENT)


VARYING: tuple[Rule, ...] = (
    Rule("POST */runs/log-batch", "sent/**", How.IGNORE, "threads share requests by chance", "async_logging"),
    Rule("POST */runs/log-batch", "sent/**", How.IGNORE, "what the machine does just then", "system_metrics"),
    Rule("GET */runs/get", "answer/**", How.IGNORE, "what the machine does just then", "system_metrics"),
    Rule("GET */runs/get", "answer/**", How.IGNORE, "read while threads still write", "autolog_sklearn"),
    Rule("POST /v1/traces", "sent/**", How.IGNORE, "spans carry nanoseconds and random ids"),
    Rule("*", "**/execution_duration", How.IGNORE, "time passes"),
    Rule("*", "**/execution_time_ms", How.IGNORE, "time passes"),
    Rule("*", "**/mlflow.trace.size*", How.IGNORE, "the digits of times count too"),
    Rule("*", "**/span_id", How.SAME_TYPE, "chosen anew each time"),
    Rule("* */datasets/*", "**/digest", How.SAME_TYPE, "made from the moment"),
    Rule("* */runs/*", "**/digest", How.SAME_TYPE, "made from the moment", "genai_evaluate"),
    Rule("* */runs/*", "**/dataset_digest", How.SAME_TYPE, "made from the moment", "genai_evaluate"),
    Rule("entity dict", "digest", How.SAME_TYPE, "made from the moment", "evaluation_datasets*"),
    Rule("*", "**/model_outputs", How.ANY_ORDER, "a stock server orders them by their random ids"),
)
"""What differs between two runs against the same server."""

REPEATED_FREELY: tuple[tuple[str, str], ...] = (
    ("async_logging", "POST /api/2.0/mlflow/runs/log-batch"),
    ("system_metrics", "POST /api/2.0/mlflow/runs/log-batch"),
    ("system_metrics", "GET /api/2.0/mlflow/runs/get"),
    # Clients remember the answer for a minute.
    ("*", "GET /api/3.0/mlflow/server-info"),
)
"""Flows and requests whose number chance decides."""

_SQL = "stock shows its SQL"
_SET = "stock prints a Python set, in a new order each time"
_FAILS = "stock fails with 500 where this server says what is wrong"
_PAGE_SIZE = "stock words it otherwise on each route"
_TAKEN = "the code of a name that is taken, as at creation"
_NO_TRACE = "stock fails on its database's foreign key where this server says what is missing"
_PRESIGNED = "there are no presigned URLs here"
_INFO = "GET */server-info"
_MODEL_ID = "the logged model that a version was made from"
_STATUS_FILTER = "stock finds nothing by `status`, nor by a dataset without its digest"
_CLASS = "Databricks' own classification, which MLflow's clients do not use"

DIFFERENCES: tuple[Rule, ...] = (
    # errors
    differs("*", "answer/json/sqlstate", _CLASS, here=ABSENT),
    differs("*", "answer/json/error_class", _CLASS, here=ABSENT),
    differs("*", "**/message", _SQL, stock="*(sqlite3.IntegrityError)*"),
    differs("error", "message", _SQL, stock="*Error: (raised as a result of*"),
    differs("*", "**/message", _SET, stock="*Valid keys are '{*"),
    differs("*", "**/message", _SET, stock="*not one of '{*"),
    differs("*", "**/message", "the same said of every kind of key", stock="*Invalid comparator for *"),
    differs(
        "*", "**/message", "the same said of every kind of key", stock="*Invalid comparison operator for *"
    ),
    differs(
        "*",
        "**/message",
        _PAGE_SIZE,
        here="*must be at most*",
        stock="*for parameter 'max_results' supplied*",
    ),
    differs(
        "*",
        "**/message",
        "says which of the two is missing",
        here="*Registered Model with*",
        stock="*Model Version (*",
    ),
    differs("*", "**/message", "says a word more", here="*keeps no artifacts under local paths."),
    differs("*", "**/message", "no setting would change it", here="*takes none that hold code*"),
    differs("*", "**/raised", _TAKEN, here="RESOURCE_ALREADY_EXISTS", stock="BAD_REQUEST"),
    differs("*", "**/error_code", _TAKEN, here="RESOURCE_ALREADY_EXISTS", stock="BAD_REQUEST"),
    differs("*", "status", _FAILS, here="400", stock=FAILED),
    differs("*", "headers", _FAILS, stock=ABSENT),
    differs("*", "answer", _FAILS, stock=ABSENT),
    differs("error", "raised", _FAILS, here="INVALID_PARAMETER_VALUE", stock="INTERNAL_ERROR"),
    differs("error", "message", "compact JSON", here="*Response text: {*", stock="*Response text: {*"),
    differs("error", "message", _FAILS, stock="*too many 500 error responses*"),
    Rule("* */search", "answer/json/next_page_token", How.SAME_TYPE, "tokens say nothing to clients"),
    # traces
    differs("* */traces/{id}/tags", "status", _NO_TRACE, here="404", stock="400"),
    differs("* */traces/{id}/tags", "answer/json/error_code", _NO_TRACE, stock="BAD_REQUEST"),
    differs("error", "raised", _NO_TRACE, here="RESOURCE_DOES_NOT_EXIST", stock="BAD_REQUEST"),
    differs(
        "POST */traces",
        "answer/json/trace/trace_info/tags/*",
        "stock leaves out what it has just stored",
        stock=ABSENT,
    ),
    differs("GET /version", "headers/content-type", "it is no page", here="text/plain*", stock="text/html*"),
    Rule("GET /version", "answer/*", How.SAME_TYPE, "the MLflow version whose API this is"),
    # artifacts
    Rule(
        "GET */artifacts/{path}",
        "headers/content-disposition",
        How.SAME_TYPE,
        "names are quoted as RFC 6266 asks",
    ),
    differs(
        "GET */artifacts/{path}",
        "headers/content-type",
        "nothing runs in a browser",
        here="text/plain",
        stock="text/html",
    ),
    differs(
        "PUT */artifacts/{path}",
        "headers/content-type",
        "JSON, as up to 2.22",
        here="application/json",
        stock=ABSENT,
    ),
    differs("PUT */artifacts/{path}", "answer/*", "`{}`, as up to 2.22"),
    differs("*", "**/file_size", "an empty file has a size", here="0"),
    # server-info
    differs(_INFO, "answer/json/presigned_upload_*", _PRESIGNED, here="False", stock="True"),
    differs(_INFO, "answer/json/features_enabled/gateway", "there is no gateway", here="False", stock="True"),
    differs(_INFO, "answer/json/**", "what later clients and the UI ask for", stock=ABSENT),
    # registry and logged models
    differs("*", "**/model_version/model_id", _MODEL_ID, stock=ABSENT),
    differs("*", "**/model_versions/*/model_id", _MODEL_ID, stock=ABSENT),
    Rule(
        "*", "**/mlflow.modelVersions/**", How.IGNORE, "stock notes each version twice, once for the client"
    ),
    _only("logged_models", "POST */logged-models/search", "answer/json/models", _STATUS_FILTER),
    _only("logged_models: filter status*", "entity list", "*", _STATUS_FILTER),
    _only("logged_models: on a dataset", "entity list", "*", _STATUS_FILTER),
    differs("*", "**/aliases/**", "with every version, however it is found", stock=ABSENT),
    differs("*", "**/latest_versions/*/model_id", _MODEL_ID, stock=ABSENT),
)
"""What this server does otherwise; each is a row of docs/mlflow-divergences.md."""


def find_rule(flow: str, where: str, path: tuple[str, ...], proxy: Any, stock: Any) -> Rule | None:
    """The first rule that lets the field be like this."""
    for rule in (*VARYING, *DIFFERENCES):
        if rule.covers(flow, where, path) and rule.allows(proxy, stock):
            return rule
    return None


def is_repeated_freely(flow: str, where: str) -> bool:
    """Whether chance decides how often this flow makes this request."""
    return any(fnmatchcase(flow, pattern) and where == route for pattern, route in REPEATED_FREELY)


def table_rows() -> Iterator[str]:
    """The differences as rows of the table in docs/mlflow-divergences.md."""
    for rule in DIFFERENCES:
        compared = rule.how.value
        if rule.how is How.THESE_VALUES:
            compared = f"`{rule.here}`, stock `{rule.stock}`"
        yield f"| `{rule.where}` | `{rule.field}` | {compared} | {rule.reason} |"


def _fits(path: tuple[str, ...], steps: tuple[str, ...]) -> bool:
    """Whether a path follows a pattern's steps; `**` stands for any number of them, or none."""
    if not steps:
        return not path
    if steps[0] == "**":
        return any(_fits(path[skipped:], steps[1:]) for skipped in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], steps[0]) and _fits(path[1:], steps[1:])


def _like(value: Any, pattern: str) -> bool:
    return pattern == "*" or fnmatchcase(str(value), pattern.replace("[", "[[]"))
