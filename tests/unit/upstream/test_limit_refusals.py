"""Which refusals speak of a limit, and of which."""

import json

import pytest

from server.domain.workspace_limits import LimitRefusal, WorkspaceLimit
from server.upstream.failures import classify_response
from server.upstream.limit_refusals import recognise_limit

_SEE = " See https://aka.ms/azure-machine-learning-limits for service limits documentation."


def _over(field: str, limit: int, size: int) -> str:
    return (
        f"A field of the entity is over the size limit. FieldName={field}, Limit={limit}, Size={size}.{_SEE}"
    )


@pytest.mark.parametrize(
    ("message", "refusal"),
    [
        (_over("Parameters", 200, 210), LimitRefusal(WorkspaceLimit.PARAMS, 200, 210)),
        (
            _over("MetricV2Dto.Value/Count", 250, 699),
            LimitRefusal(WorkspaceLimit.CALL_ROWS_PER_METRIC, 250, 699),
        ),
        (_over("MetricNames", 50, 51), LimitRefusal(WorkspaceLimit.METRIC_NAMES, 50, 51)),
        (_over("MetricV2Dto.Name", 255, 256), LimitRefusal(WorkspaceLimit.METRIC_NAME, 255, 256)),
        (_over("MetricV2Dto.Rows", 1000, 1001), LimitRefusal(WorkspaceLimit.METRIC_ROWS, 1000, 1001)),
        (_over("Tags", 50, 51), LimitRefusal(WorkspaceLimit.TAGS, 50, 51)),
        (_over("RunDto.Tags/Count", 50, 51), LimitRefusal(WorkspaceLimit.TAGS, 50, 51)),
        (_over("RunDto.Tags.Value/Length", 1000, 5000), LimitRefusal(WorkspaceLimit.TAG_VALUE, 1000, 5000)),
        (_over("TagName", 100, 101), LimitRefusal(WorkspaceLimit.TAG_KEY, 100, 101)),
        (_over("ParameterValue", 500, 6000), LimitRefusal(WorkspaceLimit.PARAM_VALUE, 500, 6000)),
        (_over("ParameterName", 250, 251), LimitRefusal(WorkspaceLimit.PARAM_KEY, 250, 251)),
        (
            "A field of the entity is over the size limit. FieldName=Parameters",
            LimitRefusal(WorkspaceLimit.PARAMS, None),
        ),
        ("(UserError) Too many metrics for this run", LimitRefusal(WorkspaceLimit.METRIC_NAMES, None)),
        (
            "Too many metrics for this run: 64. The limit is 50.",
            LimitRefusal(WorkspaceLimit.METRIC_NAMES, 50),
        ),
        ("Metric value count exceeds limit of 1000000", LimitRefusal(WorkspaceLimit.METRIC_ROWS, 1_000_000)),
        (
            "(UserError) MetricV2Dto.Name/Length 300 exceeds the limit of 255",
            LimitRefusal(WorkspaceLimit.METRIC_NAME, 255),
        ),
        ("MetricV2Dto.Name/Length exceeds the limit.", LimitRefusal(WorkspaceLimit.METRIC_NAME, None)),
        (
            "'params[0].value' exceeds the maximum length of 6000 characters",
            LimitRefusal(WorkspaceLimit.PARAM_VALUE, 6000),
        ),
        (
            "'metrics[3].key' exceeds the maximum length of 250 characters",
            LimitRefusal(WorkspaceLimit.METRIC_NAME, 250),
        ),
        (
            "Param value 'a long one' had length 780, which exceeded length limit of 500",
            LimitRefusal(WorkspaceLimit.PARAM_VALUE, 500),
        ),
        (
            "Tag value 'had length 9, which exceeded length limit of 3' had length 5276,"
            " which exceeded length limit of 5000",
            LimitRefusal(WorkspaceLimit.TAG_VALUE, 5000),
        ),
        (
            "A batch logging request can contain at most 100 params. Got 101 params.",
            LimitRefusal(WorkspaceLimit.CALL_PARAMS, 100),
        ),
        (
            "A batch logging request can contain at most 1000 metrics, params, and tags. Got 1001.",
            LimitRefusal(WorkspaceLimit.CALL_ROWS, 1000),
        ),
    ],
)
def test_words_about_a_limit(message: str, refusal: LimitRefusal) -> None:
    """Whatever service says it: the limit is named, with its figures where the words have them."""
    assert recognise_limit(message) == refusal


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Run with id=x not found",
        _over("RunDto.Properties.Value/Length", 550000, 697351),
        _over("RunDto.DisplayName/Length", 256, 300),
        _over("MetricV2Dto.Columns/Count", 15, 16),
        "Metric Document is too large, 3650b is larger than the max metric size 3000b.",
        f"Changing param values is not allowed. Old value: '{_over('Parameters', 0, 1)}'",
        f"Changing param values is not allowed. 'x'\n{_over('Parameters', 0, 1)}",
        "'run_name' exceeds the maximum length of 256 characters",
    ],
)
def test_words_about_anything_else(message: str) -> None:
    """What is not about what a run holds, or only quotes such words, teaches nothing."""
    assert recognise_limit(message) is None


@pytest.mark.parametrize(("status", "expected"), [(400, True), (413, True), (429, False), (500, False)])
def test_only_a_refusal_for_good_names_a_limit(status: int, expected: bool) -> None:
    """Throttling and failures may use the same words; nothing is learned from them."""
    body = {"Error": {"Code": "ValidationError", "Message": _over("Tags", 50, 51)}, "statusCode": status}
    failure = classify_response(status, {}, json.dumps(body).encode(), now_ms=0)
    assert (failure.limit is not None) is expected
