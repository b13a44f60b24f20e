"""What is logged to a run: metrics, params, tags, batches, and the metric histories."""

from typing import Any

import pytest

from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")

_INVALID = (400, "INVALID_PARAMETER_VALUE")
_LARGEST_DOUBLE = 1.7976931348623157e308
_INT64_MAX, _INT64_MIN = 2**63 - 1, -(2**63)


async def _history(tracking: Tracking, run_id: str, key: str) -> list[tuple[Any, ...]]:
    answer = await tracking.get("metrics/get-history", run_id=run_id, metric_key=key)
    return [(item["step"], item["timestamp"], item["value"]) for item in answer.get("metrics", [])]


async def _log(tracking: Tracking, run_id: str, *points: tuple[Any, int, int], key: str = "m") -> None:
    metrics = [{"key": key, "value": value, "step": step, "timestamp": time} for value, step, time in points]
    await tracking.post("runs/log-batch", run_id=run_id, metrics=metrics)


# --- metrics ---


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_the_latest_metric_is_the_highest_by_step_then_time_then_value(
    tracking: Tracking, *, in_one_batch: bool
) -> None:
    """MLflow's rule for the latest value, for points that arrive in any order."""
    run_id = await tracking.run()
    points = [(5, 2, 10), (9, 1, 99), (7, 2, 9), (6, 2, 10)]
    for part in [points] if in_one_batch else [[point] for point in points]:
        await _log(tracking, run_id, *part)
    assert (await tracking.data(run_id))[0]["m"] == 6


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (1.5, 1.5),
        ("1.25", 1.25),
        (-0.0, 0.0),
        (1e308, 1e308),
        (5e-324, 5e-324),
        ("NaN", "NaN"),
        ("Infinity", _LARGEST_DOUBLE),
        ("-Infinity", -_LARGEST_DOUBLE),
        ("inf", _LARGEST_DOUBLE),
        ("1e999", _LARGEST_DOUBLE),
    ],
)
async def test_values_come_back_as_a_stock_server_keeps_them(
    tracking: Tracking, sent: float | str, kept: float | str
) -> None:
    """NaN stays NaN, infinities are clamped, and numbers may come as strings."""
    run_id = await tracking.run()
    await tracking.post("runs/log-metric", run_id=run_id, key="m", value=sent, timestamp=1)
    assert await _history(tracking, run_id, "m") == [(0, 1, kept)]
    assert (await tracking.data(run_id))[0]["m"] == kept


@pytest.mark.parametrize(
    ("step", "timestamp"),
    [(_INT64_MAX, _INT64_MAX), (_INT64_MIN, 0), (str(_INT64_MAX), str(_INT64_MAX)), (-1, 1)],
)
async def test_steps_and_times_reach_to_the_edges_of_int64(
    tracking: Tracking, step: int | str, timestamp: int | str
) -> None:
    """The largest and smallest steps and times come back unharmed."""
    run_id = await tracking.run()
    await tracking.post("runs/log-metric", run_id=run_id, key="m", value=1, step=step, timestamp=timestamp)
    assert await _history(tracking, run_id, "m") == [(int(step), int(timestamp), 1)]


async def test_the_same_point_is_kept_once(tracking: Tracking) -> None:
    """Repeats are swallowed: in one batch, in a later one, and for NaN."""
    run_id = await tracking.run()
    for _ in range(2):
        await _log(tracking, run_id, (1, 0, 1), (1, 0, 1), ("NaN", 0, 1), ("NaN", 0, 1), (2, 0, 1))
        await tracking.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)
    kept = await _history(tracking, run_id, "m")
    assert len(kept) == 3
    assert set(kept) == {(0, 1, 1), (0, 1, 2), (0, 1, "NaN")}


async def test_nan_and_zero_are_different_points(tracking: Tracking) -> None:
    """NaN, which is stored beside a zero, does not swallow a real zero."""
    run_id = await tracking.run()
    await _log(tracking, run_id, ("NaN", 0, 1), (0, 0, 1))
    assert len(await _history(tracking, run_id, "m")) == 2


@pytest.mark.parametrize("key", ["a b:c", "train/loss", "é", "日本/x", "a.b-c_d", "a" * 250])
async def test_metric_keys_may_be_any_that_mlflow_allows(tracking: Tracking, key: str) -> None:
    """Letters of every script, spaces, colons and slashes are part of a key."""
    run_id = await tracking.run()
    await _log(tracking, run_id, (1, 0, 1), key=key)
    assert (await tracking.data(run_id))[0] == {key: 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Missing value for required parameter 'key'."),
        ({"key": "m"}, "Missing value for required parameter 'value'."),
        ({"key": "m", "value": 1}, "Missing value for required parameter 'timestamp'."),
        ({"key": "m", "value": None, "timestamp": 1}, "Missing value for required parameter 'value'."),
        ({"key": 31, "value": 1, "timestamp": 1}, "Invalid value 31 for parameter 'key' supplied:  Hint: V"),
        (
            {"key": "m", "value": "abc", "timestamp": 1},
            "Invalid value \"abc\" for parameter 'value' supplied:",
        ),
        ({"key": "m", "value": [1], "timestamp": 1}, "Invalid value [1] for parameter 'value' supplied:"),
        (
            {"key": "m", "value": 1, "timestamp": "x"},
            "Invalid value \"x\" for parameter 'timestamp' supplied:",
        ),
        ({"key": "m", "value": 1, "timestamp": -1}, "Invalid value -1 for parameter 'timestamp' supplied:"),
        ({"key": "m", "value": 1, "timestamp": 2**63}, "Invalid value 9223372036854775808 for parameter"),
        ({"key": "m", "value": 1, "timestamp": 1, "step": 2**63}, "Invalid value 9223372036854775808 for"),
        ({"key": "a" * 251, "value": 1, "timestamp": 1}, "'Metric name' exceeds the maximum length of 250"),
        ({"key": "a*b", "value": 1, "timestamp": 1}, "Invalid value \"a*b\" for parameter 'name' supplied:"),
        (
            {"key": "../a", "value": 1, "timestamp": 1},
            "Invalid value \"../a\" for parameter 'name' supplied:",
        ),
        (
            {"key": "a//b", "value": 1, "timestamp": 1},
            "Invalid value \"a//b\" for parameter 'name' supplied:",
        ),
        ({"key": "/a", "value": 1, "timestamp": 1}, "Invalid value \"/a\" for parameter 'name' supplied:"),
    ],
)
async def test_what_is_no_metric_is_refused(
    tracking: Tracking, fields: dict[str, object], message: str
) -> None:
    """The refusal begins as a stock server's (observed on 3.17.2)."""
    refusal = await tracking.refusal("POST", "runs/log-metric", {"run_id": await tracking.run(), **fields})
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)


async def test_a_finished_run_can_still_be_logged_to(tracking: Tracking) -> None:
    """MLflow allows logging after the end of a run."""
    run_id = await tracking.run()
    await tracking.post("runs/update", run_id=run_id, status="FINISHED")
    await _log(tracking, run_id, (1, 0, 1))
    assert (await tracking.data(run_id))[0] == {"m": 1}


# --- params and tags ---


async def test_a_param_is_immutable(tracking: Tracking) -> None:
    """The same value again is fine; another value is refused in MLflow's words and changes nothing."""
    run_id = await tracking.run()
    for _ in range(2):
        await tracking.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    refusal = await tracking.refusal(
        "POST", "runs/log-parameter", {"run_id": run_id, "key": "p", "value": "2"}
    )
    assert refusal == (
        *_INVALID,
        "Changing param values is not allowed. Param with key='p' was already logged with value='1' for run"
        f" ID='{run_id}'. Attempted logging new value '2'.",
    )
    assert (await tracking.data(run_id))[1] == {"p": "1"}


@pytest.mark.parametrize("value", ["", '日本語 🎉\n\t"x" \\', " ", "null", "0"])
async def test_params_and_tags_hold_any_text(tracking: Tracking, value: str) -> None:
    """A value comes back as it was sent."""
    run_id = await tracking.run()
    await tracking.post("runs/log-parameter", run_id=run_id, key="p", value=value)
    await tracking.post("runs/set-tag", run_id=run_id, key="t", value=value)
    _, params, tags = await tracking.data(run_id)
    assert (params["p"], tags["t"]) == (value, value)


@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
async def test_text_that_no_database_can_hold_is_refused(tracking: Tracking, value: str) -> None:
    """NUL and lone surrogates are refused alike on both databases."""
    run_id = await tracking.run()
    for route in ("log-parameter", "set-tag"):
        fields = {"run_id": run_id, "key": "k", "value": value}
        assert (await tracking.refusal("POST", f"runs/{route}", fields))[:2] == _INVALID


async def test_values_that_are_too_long_are_cut_as_on_a_stock_server(tracking: Tracking) -> None:
    """A param keeps 6000 characters and a tag 8000."""
    run_id = await tracking.run()
    await tracking.post("runs/log-parameter", run_id=run_id, key="p", value="ä" * 6001)
    await tracking.post("runs/set-tag", run_id=run_id, key="t", value="ä" * 8001)
    _, params, tags = await tracking.data(run_id)
    assert (params["p"], tags["t"]) == ("ä" * 6000, "ä" * 8000)


async def test_a_tag_is_overwritten_and_deleted_once(tracking: Tracking) -> None:
    """The later value stands; a tag that is gone cannot be deleted."""
    run_id = await tracking.run()
    for value in ("1", "2"):
        await tracking.post("runs/set-tag", run_id=run_id, key="t", value=value)
    before = (await tracking.data(run_id))[2]["t"]
    await tracking.post("runs/delete-tag", run_id=run_id, key="t")
    refusal = await tracking.refusal("POST", "runs/delete-tag", {"run_id": run_id, "key": "t"})
    assert before == "2"
    assert "t" not in (await tracking.data(run_id))[2]
    assert refusal == (
        404,
        "RESOURCE_DOES_NOT_EXIST",
        f"No tag with name: t in run with id {run_id}",
    )


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("log-parameter", {"value": "1"}, "Missing value for required parameter 'key'."),
        (
            "log-parameter",
            {"key": "p", "value": 5},
            "Invalid value 5 for parameter 'value' supplied:  Hint: V",
        ),
        ("log-parameter", {"key": "k" * 251, "value": "1"}, "'Param key' exceeds the maximum length of 250"),
        (
            "log-parameter",
            {"key": "a*b", "value": "1"},
            "Invalid value \"a*b\" for parameter 'key' supplied:",
        ),
        ("set-tag", {"value": "1"}, "Missing value for required parameter 'key'."),
        ("set-tag", {"key": "t", "value": 7}, "Invalid value 7 for parameter 'value' supplied:  Hint: Value"),
        ("set-tag", {"key": "k" * 251, "value": "1"}, "'key' exceeds the maximum length of 250 characters"),
        ("delete-tag", {}, "Missing value for required parameter 'key'."),
        ("delete-tag", {"key": 5}, "Invalid value 5 for parameter 'key' supplied:  Hint: Value was of type"),
    ],
)
async def test_what_is_no_param_or_tag_is_refused(
    tracking: Tracking, route: str, fields: dict[str, object], message: str
) -> None:
    """The refusal begins as a stock server's (observed on 3.17.2)."""
    refusal = await tracking.refusal("POST", f"runs/{route}", {"run_id": await tracking.run(), **fields})
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)


# --- batches ---


async def test_a_batch_logs_everything_in_it(tracking: Tracking) -> None:
    """Metrics, params and tags of one request are all there afterwards."""
    run_id = await tracking.run(run_name="n")
    await tracking.post(
        "runs/log-batch",
        run_id=run_id,
        metrics=[{"key": "m", "value": 1, "timestamp": 1}],
        params=[{"key": "p", "value": "2"}],
        tags=[{"key": "t", "value": "3"}],
    )
    assert await tracking.data(run_id) == ({"m": 1}, {"p": "2"}, {"t": "3", "mlflow.runName": "n"})


async def test_a_batch_that_changes_a_param_leaves_nothing_behind(tracking: Tracking) -> None:
    """All of a batch is rolled back when one of its params is refused."""
    run_id = await tracking.run(run_name="n")
    await tracking.post("runs/log-batch", run_id=run_id, params=[{"key": "p", "value": "1"}])
    refusal = await tracking.refusal(
        "POST",
        "runs/log-batch",
        {
            "run_id": run_id,
            "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
            "params": [{"key": "new", "value": "1"}, {"key": "p", "value": "2"}],
            "tags": [{"key": "t", "value": "1"}],
        },
    )
    assert refusal == (
        *_INVALID,
        "Changing param values is not allowed. Params were already logged='[{'key': 'p', 'old_value': '1',"
        f" 'new_value': '2'}}]' for run ID='{run_id}'.",
    )
    assert await tracking.data(run_id) == ({}, {"p": "1"}, {"mlflow.runName": "n"})


def _many(kind: str, count: int) -> list[dict[str, object]]:
    if kind == "metrics":
        return [{"key": f"k{number}", "value": 1, "timestamp": 1} for number in range(count)]
    return [{"key": f"k{number}", "value": "1"} for number in range(count)]


@pytest.mark.parametrize(
    ("sizes", "what", "limit"),
    [
        ({"metrics": 1001}, "metrics", 1000),
        ({"params": 101}, "params", 100),
        ({"tags": 101}, "tags", 100),
        ({"metrics": 901, "params": 100}, "metrics, params, and tags", 1000),
    ],
)
async def test_a_batch_that_is_too_large_is_refused(
    tracking: Tracking, sizes: dict[str, int], what: str, limit: int
) -> None:
    """The limits and their messages are MLflow's."""
    fields = {kind: _many(kind, count) for kind, count in sizes.items()}
    refusal = await tracking.refusal("POST", "runs/log-batch", {"run_id": await tracking.run(), **fields})
    got = sum(sizes.values())
    assert refusal == (
        *_INVALID,
        f"A batch logging request can contain at most {limit} {what}. Got {got} {what}. Please split up"
        f" {what} across multiple requests and try again.",
    )


@pytest.mark.parametrize("sizes", [{"metrics": 1000}, {"metrics": 800, "params": 100, "tags": 100}])
async def test_a_batch_at_the_limit_is_accepted(tracking: Tracking, sizes: dict[str, int]) -> None:
    """The largest batch a client sends is kept whole."""
    run_id = await tracking.run(run_name="n")
    fields = {kind: _many(kind, count) for kind, count in sizes.items()}
    await tracking.post("runs/log-batch", run_id=run_id, **fields)
    metrics, params, tags = await tracking.data(run_id)
    kept = {"metrics": len(metrics), "params": len(params), "tags": len(tags) - 1}
    assert {kind: count for kind, count in kept.items() if count} == sizes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"params": [{"key": "a", "value": "1"}] * 2},
            "Duplicate parameter keys have been submitted: ['a'].",
        ),
        ({"metrics": "x"}, "Invalid value \"x\" for parameter 'metrics' supplied:  Hint: Value was of type"),
        ({"metrics": [1]}, "Invalid value 1 for parameter 'metrics[0]' supplied:"),
        (
            {"metrics": [{"value": 1, "timestamp": 1}]},
            "Missing value for required parameter 'metrics[0].key'.",
        ),
        ({"metrics": [{"key": "a", "timestamp": 1}]}, "Missing value for required parameter 'metrics[0].val"),
        ({"metrics": [{"key": "a", "value": 1}]}, "Missing value for required parameter 'metrics[0].timest"),
        ({"params": [{"value": "1"}]}, "Missing value for required parameter 'params[0].key'."),
        ({"tags": [{"value": "1"}]}, "Missing value for required parameter 'tags[0].key'."),
        (
            {"metrics": [*_many("metrics", 1), {"key": "a*b", "value": 1, "timestamp": 1}]},
            "Invalid value \"a*b\" for parameter 'metrics[1].name' supplied:",
        ),
        ({"run_id": "a/b"}, "Invalid value \"a/b\" for parameter 'run_id' supplied."),
    ],
)
async def test_what_is_no_batch_is_refused(
    tracking: Tracking, fields: dict[str, object], message: str
) -> None:
    """The refusal names the place inside the batch."""
    refusal = await tracking.refusal("POST", "runs/log-batch", {"run_id": await tracking.run(), **fields})
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)


@pytest.mark.parametrize("fields", [{}, {"metrics": []}, {"metrics": None, "params": None, "tags": None}])
async def test_an_empty_batch_changes_nothing(tracking: Tracking, fields: dict[str, object]) -> None:
    """Absent, empty and null lists are the same."""
    run_id = await tracking.run(run_name="n")
    assert await tracking.post("runs/log-batch", run_id=run_id, **fields) == {}
    assert await tracking.data(run_id) == ({}, {}, {"mlflow.runName": "n"})


# --- histories ---


async def test_a_history_is_ordered_by_time_step_and_value(tracking: Tracking) -> None:
    """Points come in MLflow's order, whatever order they were logged in."""
    run_id = await tracking.run()
    await _log(tracking, run_id, (3, 1, 20), (2, 2, 10), (9, 1, 10), (1, 1, 10))
    assert await _history(tracking, run_id, "m") == [(1, 10, 1), (1, 10, 9), (2, 10, 2), (1, 20, 3)]


async def test_a_history_is_paged(tracking: Tracking) -> None:
    """The pages hold every point once, and the last has no token."""
    run_id = await tracking.run()
    await _log(tracking, run_id, *[(number, number, number) for number in range(7)])
    steps: list[int] = []
    tokens: list[str] = []
    for _ in range(3):
        fields = {"page_token": tokens[-1]} if tokens else {}
        page = await tracking.get(
            "metrics/get-history", run_id=run_id, metric_key="m", max_results=3, **fields
        )
        steps += [point["step"] for point in page["metrics"]]
        tokens += [page["next_page_token"]] if "next_page_token" in page else []
    assert steps == list(range(7))
    assert len(tokens) == 2


@pytest.mark.parametrize("fields", [{"metric_key": "none"}, {"run_id": "f" * 32, "metric_key": "m"}])
async def test_an_unknown_run_or_metric_has_no_history(tracking: Tracking, fields: dict[str, str]) -> None:
    """As on a stock server, that is an empty answer and no error."""
    run_id = await tracking.run()
    assert await tracking.get("metrics/get-history", **{"run_id": run_id, **fields}) == {}


async def test_the_bulk_history_holds_the_points_of_several_runs(tracking: Tracking) -> None:
    """Each point says whose it is, and unknown runs are passed over."""
    one, other = sorted([await tracking.run(), await tracking.run()])
    await _log(tracking, one, (1, 0, 1), (2, 1, 2))
    await _log(tracking, other, (3, 0, 1))
    fields = {"run_id": [other, one, "f" * 32], "metric_key": "m"}
    answer = await tracking.get("metrics/get-history-bulk", **fields)
    limited = await tracking.get("metrics/get-history-bulk", **fields, max_results=2)
    shown = [(point["run_id"], point["value"]) for point in answer["metrics"]]
    assert shown == [(one, 1), (one, 2), (other, 3)]
    assert limited["metrics"] == answer["metrics"][:2]


async def test_the_bulk_history_of_nothing_is_an_empty_list(tracking: Tracking) -> None:
    """The UI reads the list without asking whether it is there."""
    run_id = await tracking.run()
    assert await tracking.get("metrics/get-history-bulk", run_id=run_id, metric_key="m") == {"metrics": []}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, list(range(20))),
        ({"max_results": 4}, [0, 5, 10, 19]),
        ({"max_results": 1}, [19]),
        ({"start_step": 5, "end_step": 7}, [5, 6, 7]),
    ],
)
async def test_a_chart_gets_an_even_sample(
    tracking: Tracking, fields: dict[str, int], expected: list[int]
) -> None:
    """Sampled steps are those of a stock server (observed on 3.17.2), with the last point among them."""
    run_id = await tracking.run()
    await _log(tracking, run_id, *[(number, number, number) for number in range(20)])
    answer = await tracking.get(
        "metrics/get-history-bulk-interval", run_ids=[run_id, "f" * 32], metric_key="m", **fields
    )
    assert [point["step"] for point in answer["metrics"]] == expected
    assert {point["run_id"] for point in answer["metrics"]} == {run_id}


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("get-history", {"metric_key": "m"}, "Missing value for required parameter 'run_id'."),
        ("get-history", {"run_id": "r"}, "Missing value for required parameter 'metric_key'."),
        (
            "get-history",
            {"run_id": "r", "metric_key": "m", "max_results": 0},
            "Invalid value 0 for parameter",
        ),
        ("get-history", {"run_id": "r", "metric_key": "m", "page_token": "x"}, "Invalid page token"),
        ("get-history-bulk", {}, "GetMetricHistoryBulk request must specify at least one run_id."),
        ("get-history-bulk", {"run_id": "r"}, "GetMetricHistoryBulk request must specify a metric_key."),
        (
            "get-history-bulk",
            {"run_id": ["r"] * 101, "metric_key": "m"},
            "GetMetricHistoryBulk request cannot",
        ),
        ("get-history-bulk-interval", {}, "Missing value for required parameter 'run_ids'."),
        ("get-history-bulk-interval", {"run_ids": "r"}, "Missing value for required parameter 'metric_key'."),
        (
            "get-history-bulk-interval",
            {"run_ids": ["r"] * 101, "metric_key": "m"},
            "GetMetricHistoryBulkInterval request must specify at most 100 run_ids. Received 101 run_ids.",
        ),
        (
            "get-history-bulk-interval",
            {"run_ids": "r", "metric_key": "m", "max_results": 2501},
            "max_results must be between 1 and 2500.",
        ),
        (
            "get-history-bulk-interval",
            {"run_ids": "r", "metric_key": "m", "start_step": 5},
            "If either start step or end step are specified, both must be specified.",
        ),
        (
            "get-history-bulk-interval",
            {"run_ids": "r", "metric_key": "m", "start_step": 5, "end_step": 1},
            "end_step must be greater than start_step. Found start_step=5 and end_step=1.",
        ),
    ],
)
async def test_a_question_about_histories_that_makes_no_sense_is_refused(
    tracking: Tracking, route: str, fields: dict[str, object], message: str
) -> None:
    """The refusal begins as a stock server's (observed on 3.17.2)."""
    refusal = await tracking.refusal("GET", f"metrics/{route}", fields)
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)
