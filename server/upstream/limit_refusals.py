"""Recognising that the workspace refuses a write because one of its limits is reached.

Its words differ between its services and have changed over the years, so they are recognised by a table of
patterns, never by one sentence. What no pattern fits is an ordinary refusal. Every pattern is tied to the
start of the words: a refusal may quote what a client logged, and that must not teach us anything.

Evidence: [I] quoted in a public issue, [C] in the source of Microsoft's own clients, [M] MLflow's own words,
[?] formed like those seen.
"""

import re
from dataclasses import dataclass

from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit

_PREFIX = r"^\s*(?:\(\w+\)\s*)?"


@dataclass(frozen=True, slots=True)
class _Words:
    """Words that speak of a limit: they name a field (`field`), or are about `limit` themselves."""

    pattern: re.Pattern[str]
    limit: WorkspaceLimit | None = None


def _words(pattern: str, limit: WorkspaceLimit | None = None) -> _Words:
    return _Words(re.compile(_PREFIX + pattern, re.IGNORECASE | re.DOTALL), limit)


_WORDS = (
    # [I] mlflow#11462, azure-sdk-for-python#35685, MachineLearningNotebooks#1605
    _words(
        r"A field of the entity is over the size limit\W+FieldName=(?P<field>[\w./]+)"
        r"(?:\W+Limit=(?P<value>\d{1,15})\b)?(?:\W+Size=(?P<size>\d{1,15})\b)?"
    ),
    # [C] the job runtime: "MetricV2Dto.Name/Length … exceeds the limit"
    _words(r"(?P<field>\w+Dto\.[\w./]+)\b.*?\bexceeds the limit(?:\W+(?:of|is)?\W*(?P<value>\d{1,15})\b)?"),
    # [C] the same; what follows these words is not known
    _words(
        r"Too many metrics for this run"
        r"(?:.{0,80}?\b(?:limit|maximum|at most)\b\D{0,20}(?P<value>\d{1,15})\b)?",
        WorkspaceLimit.METRIC_NAMES,
    ),
    _words(r"Metric value count exceeds limit of (?P<value>\d{1,15})\b", WorkspaceLimit.METRIC_ROWS),  # [C]
    # [M] MLflow 3: "'params[0].value' exceeds the maximum length of 6000 characters"
    _words(
        r"'(?P<field>(?:params|tags|metrics)\[\d+\]\.\w+)' exceeds the maximum length of"
        r" (?P<value>\d{1,15})\b"
    ),
    # [M] MLflow 1 and 2: "Param value '…' had length 780, which exceeded length limit of 500"
    _words(
        r"(?P<field>(?:Param|Tag|Metric) (?:key|name|value)) '.*' had length \d+, which exceeded length limit"
        r" of (?P<value>\d{1,15})\b"
    ),
    *(
        # [M]
        _words(rf"A batch logging request can contain at most (?P<value>\d{{1,15}}) {noun}\.", limit)
        for noun, limit in (
            ("metrics", WorkspaceLimit.CALL_ROWS),
            ("metrics, params, and tags", WorkspaceLimit.CALL_ROWS),
            ("params", WorkspaceLimit.CALL_PARAMS),
            ("tags", WorkspaceLimit.CALL_TAGS),
        )
    ),
)

_RUN = r"(?:run\w*\.)?"
_FIELDS = tuple(
    (re.compile(pattern, re.IGNORECASE), limit)
    for pattern, limit in (
        (rf"{_RUN}param(eter)?s(/count)?", WorkspaceLimit.PARAMS),  # [I] Parameters
        (rf"{_RUN}param(eter)?s?[\[\]\d]*[. ]?(key|name)s?(/length)?", WorkspaceLimit.PARAM_KEY),  # [?]
        (rf"{_RUN}param(eter)?s?[\[\]\d]*[. ]?values?(/length)?", WorkspaceLimit.PARAM_VALUE),  # [?]
        # [?] like RunDto.Properties.Value/Length, which is [I]
        (rf"{_RUN}tags(/count)?", WorkspaceLimit.TAGS),
        (rf"{_RUN}tags?[\[\]\d]*[. ]?(key|name)s?(/length)?", WorkspaceLimit.TAG_KEY),
        (rf"{_RUN}tags?[\[\]\d]*[. ]?values?(/length)?", WorkspaceLimit.TAG_VALUE),
        (r"metricnames(/count)?|run\w*\.metrics(/count)?", WorkspaceLimit.METRIC_NAMES),  # [?]
        (r"metric(v2)?(dto)?s?[\[\]\d]*[. ]?(key|name)(/length)?", WorkspaceLimit.METRIC_NAME),  # [C]
        (r"metricv2dto\.value/count", WorkspaceLimit.CALL_ROWS_PER_METRIC),  # [I]
        (r"metricv2dto\.rows(/count)?", WorkspaceLimit.METRIC_ROWS),  # [?]
    )
)


def recognise_limit(message: str) -> LimitRefusal | None:
    """The limit that the words of a refusal speak of; None where they speak of none that we know."""
    for words in _WORDS:
        found = words.pattern.match(message)
        if found is None:
            continue
        named = found.groupdict()
        limit = words.limit or _limit_of_field(named.get("field") or "")
        if limit is not None:
            return LimitRefusal(limit, _number(named.get("value")), _number(named.get("size")))
    return None


def _number(digits: str | None) -> int | None:
    return int(digits) if digits else None


def _limit_of_field(field: str) -> WorkspaceLimit | None:
    field = field.rstrip("./")
    return next((limit for pattern, limit in _FIELDS if pattern.fullmatch(field)), None)
