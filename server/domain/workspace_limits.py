"""What the workspace can hold at most, by name. The figures are learned (`journal.limits`)."""

from dataclasses import dataclass
from enum import StrEnum


class WorkspaceLimit(StrEnum):
    """A limit that the workspace was seen to refuse by. The names are kept in the database, for ever."""

    PARAMS = "params_per_run"
    TAGS = "tags_per_run"
    METRIC_NAMES = "metric_names_per_run"
    METRIC_ROWS = "rows_per_metric"
    PARAM_KEY = "param_key_length"
    PARAM_VALUE = "param_value_length"
    TAG_KEY = "tag_key_length"
    TAG_VALUE = "tag_value_length"
    METRIC_NAME = "metric_name_length"
    CALL_ROWS = "rows_per_call"
    CALL_ROWS_PER_METRIC = "rows_per_metric_per_call"
    CALL_PARAMS = "params_per_call"
    CALL_TAGS = "tags_per_call"


@dataclass(frozen=True, slots=True)
class LimitRefusal:
    """A refusal by a limit: what the workspace allows, and what it would have come to, where it says so."""

    limit: WorkspaceLimit
    value: int | None
    size: int | None = None
