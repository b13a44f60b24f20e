"""The grammar of a traces search: what a filter and an order say, and what they may not."""

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.search.patterns import check_pattern, matches
from server.protocol.search.traces import (
    RLIKE,
    TraceComparison,
    TraceEntity,
    TraceOrder,
    parse_trace_filter,
    parse_trace_order,
)

ATTRIBUTE, TAG, METADATA = TraceEntity.ATTRIBUTE, TraceEntity.TAG, TraceEntity.METADATA
SPAN, FEEDBACK, EXPECTATION = TraceEntity.SPAN, TraceEntity.FEEDBACK, TraceEntity.EXPECTATION
NAME, RUN = "mlflow.traceName", "mlflow.sourceRun"


def refused(text: str) -> str:
    """The message that a filter is refused with."""
    with pytest.raises(MlflowError) as caught:
        parse_trace_filter(text)
    assert caught.value.code is ErrorCode.INVALID_PARAMETER_VALUE
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "comparison"),
    [
        ("status = 'OK'", (ATTRIBUTE, "status", "=", "OK")),
        ("trace.status = 'OK'", (ATTRIBUTE, "status", "=", "OK")),
        ("attributes.request_id IN ('a', \"b\")", (ATTRIBUTE, "request_id", "IN", ("a", "b"))),
        ("client_request_id NOT IN ('a')", (ATTRIBUTE, "client_request_id", "NOT IN", ("a",))),
        ("timestamp > 5", (ATTRIBUTE, "timestamp_ms", ">", 5)),
        ("timestamp_ms <= '5'", (ATTRIBUTE, "timestamp_ms", "<=", 5)),
        ("trace.execution_time >= 0.5", (ATTRIBUTE, "execution_time_ms", ">=", 0.5)),
        ("end_time != 7", (ATTRIBUTE, "end_time_ms", "!=", 7)),
        ("name = 'n'", (TAG, NAME, "=", "n")),
        ("trace.name LIKE 'n%'", (TAG, NAME, "LIKE", "n%")),
        ("tags.name = 'n'", (TAG, NAME, "=", "n")),
        ("tag.`my key` rlike '^a'", (TAG, "my key", RLIKE, "^a")),
        ("tags.k IS NULL", (TAG, "k", "IS NULL", None)),
        ("tags.k is not null", (TAG, "k", "IS NOT NULL", None)),
        ("metadata.k ILIKE 'a'", (METADATA, "k", "ILIKE", "a")),
        ("request_metadata.`mlflow.sourceRun` = 'r'", (TraceEntity.RUN, RUN, "=", "r")),
        ("run_id = 'r'", (TraceEntity.RUN, RUN, "=", "r")),
        ("run_id LIKE 'r%'", (METADATA, RUN, "LIKE", "r%")),
        ("prompt = 'p/1'", (TraceEntity.PROMPT, "mlflow.linkedPrompts", "=", "p/1")),
        ("trace.text LIKE '%a%'", (SPAN, "content", "LIKE", "%a%")),
        ("span.content ILIKE '%a%'", (SPAN, "content", "ILIKE", "%a%")),
        ("span.name IN ('a', 'b')", (SPAN, "name", "IN", ("a", "b"))),
        ("span.attributes.a.b = 'v'", (SPAN, "attributes.a.b", "=", "v")),
        ("feedback.name = 'v'", (FEEDBACK, "name", "=", "v")),
        ("feedback.score >= 1", (FEEDBACK, "score", ">=", 1)),
        ("expectation.e != 'v'", (EXPECTATION, "e", "!=", "v")),
        ("issue.id = 'iss-1'", (TraceEntity.ISSUE, "id", "=", "iss-1")),
    ],
)
def test_one_comparison(text: str, comparison: tuple[Any, ...]) -> None:
    """A clause means what it means to a stock server; names of things that stand elsewhere are settled."""
    assert parse_trace_filter(text) == (TraceComparison(*comparison),)


def test_comparisons_are_joined_by_and() -> None:
    """A filter is the conjunction of its clauses; an empty one has none."""
    assert [item.key for item in parse_trace_filter("status = 'OK' AND tags.k = 'v' and timestamp > 1")] == [
        "status",
        "k",
        "timestamp_ms",
    ]
    assert parse_trace_filter("") == parse_trace_filter(None) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope = 'x'", "Invalid attribute key 'nope' specified."),
        ("metrics.a > 1", "Invalid entity type 'metrics'."),
        ("status = 'a' OR status = 'b'", "Invalid clause(s) in filter string: 'OR'"),
        ("status > 'OK'", "Invalid comparator '>' not one of"),
        ("status IS NULL", "Invalid comparator 'IS NULL' not one of"),
        ("status = OK", "Parameter value is either not quoted"),
        ("status = 5", "Only the '"),
        ("timestamp LIKE '5'", "Invalid comparator 'LIKE' not one of"),
        ("timestamp = 'soon'", "Invalid value for numeric attribute 'timestamp'"),
        ("timestamp IN ('5')", "Only attributes in"),
        ("status IN 'OK'", "Invalid clause(s) in filter string: 'status'"),
        ("tags.k IN ('v')", "Invalid comparator 'IN' not one of"),
        ("tags.k = 5", "Expected a quoted string value for tag"),
        ("metadata.k > 'v'", "Invalid comparator '>' not one of"),
        ("metadata.k = ('v')", "Expected a quoted string value for request_metadata"),
        ("metadata.`mlflow.trace.cost` LIKE 'x'", "Comparator 'LIKE' is not supported for reserved metadata"),
        ("span.colour = 'x'", "Invalid span attribute 'colour'. Supported attributes: name, status, type,"),
        ("span.attributes. = 'x'", ""),
        ("span.name > 'x'", "span.name comparator '>' not one of"),
        ("text = 'x'", "span.content comparator '=' not one of"),
        ("feedback.s = 5", "Expected a quoted string value for feedback"),
        ("feedback.s > 'x'", "Expected a numeric value for feedback when using comparator '>'."),
        ("feedback.s IN ('x')", "Expected a quoted string value for feedback"),
        ("issue.name = 'x'", "Invalid issue attribute 'name'. Supported attributes: id"),
        ("issue.id != 'x'", "issue.id comparator '!=' not one of"),
        ("prompt LIKE 'p/%'", "Invalid comparator 'LIKE' for prompts filter."),
        ("prompt = 'p'", "Invalid prompts filter value 'p'."),
        ("tags.k RLIKE '('", "Invalid regular expression '(' in filter"),
        ("tags.k RLIKE 'a(?=b)'", "Invalid regular expression"),
        (r"tags.k RLIKE '(a)\1'", "Invalid regular expression"),
        (f"tags.k LIKE '{'a' * 10_001}'", "A LIKE pattern is limited"),
        (f"tags.k RLIKE '{'a' * 1001}'", "An RLIKE pattern is limited"),
        ("   ", "Invalid filter"),
    ],
)
def test_filters_that_are_refused(text: str, message: str) -> None:
    """What is not in the grammar is refused, in a stock server's words where it has some."""
    assert refused(text).startswith(message)


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """No text brings the parser down."""
    with suppress(MlflowError):
        parse_trace_filter(text)


@pytest.mark.parametrize(
    ("clause", "order"),
    [
        ("timestamp", TraceOrder(ATTRIBUTE, "timestamp_ms", ascending=True)),
        ("timestamp_ms DESC", TraceOrder(ATTRIBUTE, "timestamp_ms", ascending=False)),
        ("attributes.experiment_id asc", TraceOrder(ATTRIBUTE, "experiment_id", ascending=True)),
        ("name DESC", TraceOrder(TAG, NAME, ascending=False)),
        ("tags.`a b`", TraceOrder(TAG, "a b", ascending=True)),
        ("run_id", TraceOrder(METADATA, RUN, ascending=True)),
    ],
)
def test_orders(clause: str, order: TraceOrder) -> None:
    """A clause sorts by an attribute, a tag or metadata."""
    assert parse_trace_order([clause]) == (order,)


@pytest.mark.parametrize(
    "clauses",
    [
        ["client_request_id"],
        ["text"],
        ["span.name"],
        ["feedback.a"],
        ["timestamp sideways"],
        ["timestamp", "timestamp_ms DESC"],
        ["metadata.`mlflow.trace.tokenUsage`"],
    ],
)
def test_orders_that_are_refused(clauses: list[str]) -> None:
    """What cannot be sorted by, or twice, is refused."""
    with pytest.raises(MlflowError):
        parse_trace_order(clauses)


# --- regular expressions --------------------------------------------------------------------

ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\d", "(a|b)", "(?:ab)", "(a*b|c)", "^", "$", r"\.", "x{1,2}"]
MARKS = ["", "*", "+", "?", "{2}", "{0,2}", "*?"]


@given(
    st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(MARKS)), max_size=5),
    st.text(alphabet="abc1.x", max_size=10),
)
def test_patterns_mean_what_they_mean_to_python(parts: list[tuple[str, str]], text: str) -> None:
    """A pattern that is taken matches exactly where Python's own would."""
    pattern = "".join(atom + mark for atom, mark in parts)
    try:
        found = matches(pattern, text)
    except MlflowError:
        return
    assert found is (re.search(pattern, text) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "*",
        "a**",
        "[",
        "a{2,1}",
        "a{999}",
        r"\b",
        "(?i)a",
        "(?<=a)b",
        "(" * 60 + ")" * 60,
        "((((a){200}){200}){200}){200}",
        "((){255}){255}",
        "[[:nope:]]",
    ],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    """Patterns that are not well-formed, too large, or would have to go back are turned away."""
    with pytest.raises(MlflowError):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^a*a*a*a*a*a*$", "(.*)*x"])
def test_patterns_take_time_linear_in_the_text(pattern: str) -> None:
    """Patterns that blow up elsewhere are done with a long text in one pass."""
    assert matches(pattern, "a" * 50_000 + "b") is False


def test_nothing_matches_what_is_not_there() -> None:
    """A null column matches no pattern."""
    assert matches("a*", None) is False
