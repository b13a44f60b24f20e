"""MLflow's limits and the checks that apply them, with MLflow's own messages (observed on 3.17/3.18).

Clients show these messages to people and some test their beginnings.
"""

import json
import posixpath
import re
from collections.abc import Iterable, Sequence

from server.domain.errors import MlflowError, invalid_parameter

METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
TAGS_PER_BATCH = 100
ENTITIES_PER_BATCH = 1000
DATASETS_PER_BATCH = 1000
ENTITY_KEY = 250
PARAM_VALUE = 6000
TAG_VALUE = 8000
EXPERIMENT_NAME = 500
EXPERIMENT_TAG_VALUE = 20_000
REGISTRY_TAG_VALUE = 100_000
ARTIFACT_LOCATION = 2048
DATASET_NAME = 500
DATASET_DIGEST = 36
DATASET_SCHEMA = 1_048_575
DATASET_SOURCE = 65_535
DATASET_PROFILE = 16_777_215
INPUT_TAG_KEY = 255
INPUT_TAG_VALUE = 500
ALIAS = 255
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

_NAME = re.compile(r"[/\w.\- :]*")
_PLAIN_NAME = re.compile(r"\w[\w.]*")
_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_ALIAS = re.compile(r"[\w\-]*")
_VERSION_ALIAS = re.compile(r"[vV]\d+")
_BAD_CHARACTERS = (
    "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.),"
    " spaces ( ), colon(:) and slashes (/)."
)


def invalid_value(path: str, value: object, message: str = "") -> MlflowError:
    """A field whose value can never be accepted."""
    shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return invalid_parameter(
        f"Invalid value {shown} for parameter '{path}' supplied{': ' + message if message else '.'}"
    )


def exceeds_length(what: str, limit: int) -> MlflowError:
    """A text that is longer than MLflow allows."""
    return invalid_parameter(f"'{what}' exceeds the maximum length of {limit} characters")


def check_key(name: str, path: str, *, length_name: str | None = None) -> None:
    """A metric, param or tag name: allowed characters, normal as a path, not too long."""
    if not (_PLAIN_NAME.fullmatch(name) and name.isascii()):
        if not _NAME.fullmatch(name):
            raise invalid_value(path, name, _BAD_CHARACTERS)
        _check_normal(name, path)
    if len(name) > ENTITY_KEY:
        raise exceeds_length(length_name or path, ENTITY_KEY)


def _check_normal(name: str, path: str) -> None:
    normal = posixpath.normpath(name)
    if normal != name or normal == "." or normal.startswith(("..", "/")):
        raise invalid_value(
            path,
            name,
            "Names may be treated as files in certain cases, and must not resolve to other names"
            f" when treated as such. This name would resolve to {normal!r}",
        )


def check_length(what: str, limit: int, value: str | None) -> None:
    """Refuse a text longer than `limit` characters."""
    if value is not None and len(value) > limit:
        raise exceeds_length(what, limit)


def check_timestamp(timestamp_ms: int, key: str, value: object, path: str = "timestamp") -> None:
    """A metric's timestamp: an int64 that is not negative."""
    if timestamp_ms < 0 or timestamp_ms > INT64_MAX:
        raise invalid_value(
            path,
            timestamp_ms,
            f"metric '{key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) ",
        )


def check_step(step: int, key: str, value: object, path: str = "step") -> None:
    """A metric's step: an int64."""
    if not INT64_MIN <= step <= INT64_MAX:
        raise invalid_value(
            path, step, f"metric '{key}' (value={value}). Step must be a valid long (64-bit integer)."
        )


def check_int64(name: str, value: int | None) -> None:
    """Refuse what no int64 column can hold."""
    if value is not None and not INT64_MIN <= value <= INT64_MAX:
        raise invalid_value(name, value)


def check_batch(metrics: int, params: int, tags: int) -> None:
    """The sizes of a log-batch request."""
    _check_count("metrics", METRICS_PER_BATCH, metrics)
    _check_count("params", PARAMS_PER_BATCH, params)
    _check_count("tags", TAGS_PER_BATCH, tags)
    _check_count("metrics, params, and tags", ENTITIES_PER_BATCH, metrics + params + tags)


def _check_count(what: str, limit: int, count: int) -> None:
    if count > limit:
        raise invalid_parameter(
            f"A batch logging request can contain at most {limit} {what}. Got {count} {what}."
            f" Please split up {what} across multiple requests and try again."
        )


def check_unique_params(keys: Sequence[str]) -> None:
    """One value per param key in a request."""
    if len(set(keys)) == len(keys):
        return
    seen: set[str] = set()
    repeated = [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    raise invalid_parameter(
        f"Duplicate parameter keys have been submitted: {repeated}. Please ensure "
        "the request contains only one param value per param key."
    )


def check_run_id(run_id: str) -> None:
    """A run id as MLflow accepts it."""
    if not _RUN_ID.fullmatch(run_id):
        raise invalid_value("run_id", run_id)


def check_experiment_name(name: str | None) -> str:
    """A new experiment's name."""
    if not name:
        raise invalid_parameter(f"Invalid experiment name: '{name}'")
    check_length("name", EXPERIMENT_NAME, name)
    check_text("name", name)
    return name


def check_model_name(name: str | None) -> str:
    """A registered model's name."""
    if name is None or not name.strip():
        raise invalid_parameter("Missing value for required parameter 'name'.")
    if "/" in name or ":" in name:
        raise invalid_parameter(f"Invalid model name '{name}'. Names cannot contain '/' or ':'.")
    _check_normal(name, "name")
    check_text("name", name)
    return name


def check_alias(alias: str | None) -> str:
    """A registered model alias that may be set."""
    if not alias:
        raise invalid_parameter("Registered model alias name cannot be empty.")
    if not _ALIAS.fullmatch(alias):
        raise invalid_parameter(
            f"Invalid alias name: '{alias}'. Names may only contain alphanumerics, underscores (_),"
            " and dashes (-)."
        )
    check_length("Registered model alias name", ALIAS, alias)
    if alias.lower() == "latest":
        raise invalid_parameter("'latest' alias name (case insensitive) is reserved.")
    if _VERSION_ALIAS.fullmatch(alias):
        raise invalid_parameter(f"Version alias name '{alias}' is reserved.")
    return alias


def check_text(path: str, value: str) -> None:
    """Text that every database can hold: no NUL, no lone surrogate."""
    if "\0" in value or not _encodable(value):
        raise invalid_value(path, value, "The text holds characters that cannot be stored.")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_page_size(max_results: int | None, *, default: int, largest: int) -> int:
    """The page size a client asks for, or the default."""
    if max_results is None:
        return default
    if max_results < 1:
        raise invalid_parameter(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
        )
    if max_results > largest:
        raise invalid_parameter(
            f"Invalid value for request parameter max_results. It must be at most {largest}, but got"
            f" value {max_results}"
        )
    return max_results


def check_texts(pairs: Iterable[tuple[str, str]], path: str) -> None:
    """Values that every database can hold."""
    for index, (_, value) in enumerate(pairs):
        check_text(f"{path}[{index}].value", value)
