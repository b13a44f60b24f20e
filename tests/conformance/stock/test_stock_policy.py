"""The declared differences are the documented ones, and they allow no more than they say."""

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.stock.compare import Comparison
from tests.conformance.stock.normal import normalised
from tests.conformance.stock.policy import ABSENT, DIFFERENCES, VARYING, How, Rule, table_rows
from tests.support.emulator import REPOSITORY

PAGE: Path = REPOSITORY / "docs" / "mlflow-divergences.md"
HEADING = "## Field by field"
GET = "GET /api/2.0/mlflow/runs/get"


def call(answer: Any, path: str = "/api/2.0/mlflow/runs/get", **others: Any) -> dict[str, Any]:
    """A recorded call."""
    made = {"method": "GET", "path": path, "query": [], "sent": None, "status": 200, "headers": {}}
    return {**made, "answer": answer, **others}


def flow(*calls: dict[str, Any]) -> dict[str, Any]:
    """A recorded flow."""
    return {"calls": list(calls), "results": []}


def record(*calls: dict[str, Any]) -> dict[str, Any]:
    """What one client process recorded."""
    times = {"started_ms": 1_700_000_000_000, "ended_ms": 1_700_000_001_000}
    return {"server": "http://a:1", "folder": "/work", **times, "flows": {"one": flow(*calls)}}


def test_the_page_lists_what_is_declared() -> None:
    """The table of the documentation has a row for each declared difference, and no other."""
    section = PAGE.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == list(table_rows())


def test_every_rule_has_a_reason() -> None:
    """Nothing is declared without saying why."""
    assert [rule for rule in (*DIFFERENCES, *VARYING) if len(rule.reason.split()) < 2] == []


def test_an_unknown_field_must_match() -> None:
    """A field that no rule names is a difference when it is on one side only."""
    comparison = Comparison("3")
    comparison.add("one", flow(call({"json": {"new": 1}})), flow(call({"json": {}})))
    found = [(found.field, found.proxy, found.stock) for found in comparison.differences]
    assert found == [("answer/json/new", 1, ABSENT)]


def test_a_number_is_not_a_text() -> None:
    """Equal values of different types are a difference."""
    comparison = Comparison("3")
    comparison.add("one", flow(call({"json": {"step": 1}})), flow(call({"json": {"step": 1.0}})))
    assert len(comparison.differences) == 1


def test_a_call_on_one_side_only_is_a_difference() -> None:
    """A client that was led to ask more, or less, is noticed."""
    comparison = Comparison("3")
    comparison.add("one", flow(call({}), call({})), flow(call({})))
    assert [found.stock for found in comparison.differences] == [ABSENT]


@pytest.mark.parametrize(("here", "stock", "differs"), [("{2}", "{2}", False), ("{1}", "{2}", True)])
def test_an_id_stays_the_same_thing(here: str, stock: str, differs: bool) -> None:
    """Other ids on both sides are equal as long as the same ones name the same things."""
    answers = {"1": "a" * 32, "2": "b" * 32}, {"1": "c" * 32, "2": "d" * 32}
    sides = []
    for wanted, ids in zip((here, stock), answers, strict=True):
        third = ids[wanted.strip("{}")]
        sides.append(normalised(record(call({"json": {"ids": [ids["1"], ids["2"], third]}})))["one"])
    comparison = Comparison("3")
    comparison.add("one", *sides)
    assert bool(comparison.differences) is differs


def test_a_time_of_the_flows_own_choice_must_match() -> None:
    """Only moments of the run itself are taken for equal."""
    now, chosen = 1_700_000_000_500, 1_600_000_000_000
    found = normalised(record(call({"json": [now, chosen, now * 1_000_000, str(now)]})))["one"]["calls"][0]
    assert found["answer"]["json"] == ["<now in ms>", chosen, "<now in ns>", "<now>"]


@pytest.mark.parametrize(
    ("field", "path", "covered"),
    [
        ("a/*/c", ("a", "b", "c"), True),
        ("a/*/c", ("a", "c"), False),
        ("a/**", ("a",), True),
        ("a/**", ("a", "b", "c"), True),
        ("**/c", ("a", "b", "c"), True),
        ("**/c", ("a", "b", "c", "d"), False),
    ],
)
def test_a_rule_covers_the_fields_it_names(field: str, path: tuple[str, ...], covered: bool) -> None:
    """One star is one step of a path, two are any number of them."""
    assert Rule("GET *", field, How.IGNORE, "for the test").covers("one", GET, path) is covered


def test_a_rule_about_values_allows_no_others() -> None:
    """A declared difference between two values does not cover a third."""
    rule = Rule("*", "**", How.THESE_VALUES, "for the test", here="0", stock=ABSENT)
    assert rule.allows(0, ABSENT)
    assert not rule.allows(1, ABSENT)
    assert not rule.allows(0, 5)
