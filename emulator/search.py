"""Filters, orders and pages as this service takes them: less than MLflow's own.

Conditions are joined with AND only; runs are ordered by attributes only; attribute values are quoted;
tags have no `!=`; metric names that need quoting cannot be compared; registered models are found by
`name =` alone [D]. The refusal of OR is the quoted one [I]; the others are ours [?].
"""

import base64
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emulator.errors import JsonObject, invalid
from emulator.workspace import Call

OR_REFUSAL = "Currently unsupported filter string format (we currently do not support OR)."
CONDITION = re.compile(
    r"""\s*(?:(?P<kind>\w+)\.)?(?P<key>`[^`]+`|"[^"]+"|[\w./\- ]+?)\s*
        (?P<operator>!=|>=|<=|=|>|<|\bNOT\s+IN\b|\bIN\b|\bILIKE\b|\bLIKE\b)\s*
        (?P<value>'(?:[^']|'')*'|"[^"]*"|\([^)]*\)|[-+]?[\w.+-]+)\s*""",
    re.VERBOSE | re.IGNORECASE,
)
KINDS = {
    "attribute": "attribute",
    "attributes": "attribute",
    "attr": "attribute",
    "run": "attribute",
    "metric": "metric",
    "metrics": "metric",
    "param": "param",
    "params": "param",
    "parameter": "param",
    "parameters": "param",
    "tag": "tag",
    "tags": "tag",
}
NUMBERS = {"start_time", "end_time", "duration", "creation_time", "last_update_time"}
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    "IN": lambda left, right: left in right,
    "NOT IN": lambda left, right: left not in right,
    "LIKE": lambda left, right: _is_like(left, right, 0),
    "ILIKE": lambda left, right: _is_like(left, right, re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a filter."""

    kind: str
    key: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Grammar:
    """Which operators a kind of key takes, and whether an attribute's value must be quoted."""

    operators: dict[str, frozenset[str]]
    quotes_attributes: bool
    attributes: frozenset[str]


RUNS = Grammar(
    operators={
        "attribute": frozenset({"=", "!=", ">", ">=", "<", "<=", "IN", "NOT IN", "LIKE", "ILIKE"}),
        "metric": frozenset({"=", "!=", ">", ">=", "<", "<="}),
        "param": frozenset({"=", "!=", "LIKE"}),
        "tag": frozenset({"=", "LIKE"}),
    },
    quotes_attributes=True,
    attributes=frozenset(
        {"run_id", "run_name", "status", "user_id", "artifact_uri", "start_time", "end_time", "duration"}
    ),
)
EXPERIMENTS = Grammar(
    operators={
        "attribute": frozenset({"=", "!=", ">", ">=", "<", "<=", "IN", "LIKE", "ILIKE"}),
        "tag": frozenset({"="}),
    },
    quotes_attributes=False,
    attributes=frozenset({"experiment_id", "name", "creation_time", "last_update_time"}),
)
MODELS = Grammar(
    operators={"attribute": frozenset({"="})}, quotes_attributes=True, attributes=frozenset({"name"})
)


def parse(text: str, grammar: Grammar) -> list[Condition]:
    """The conditions of a filter; raises the service's refusal for what it does not take."""
    text = text.strip()
    if not text:
        return []
    outside = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`", "''", text)
    if re.search(r"\bOR\b", outside, re.IGNORECASE):
        raise invalid(OR_REFUSAL)
    conditions = []
    position = 0
    while position < len(text):
        match = CONDITION.match(text, position)
        if match is None:
            raise invalid(f"{OR_REFUSAL} Invalid clause(s) in filter string: {text[position:]!r}")
        conditions.append(_condition(match, grammar))
        position = match.end()
        joined = re.compile(r"AND\b", re.IGNORECASE).match(text, position)
        if joined is None and position < len(text):
            raise invalid(f"{OR_REFUSAL} Invalid clause(s) in filter string: {text[position:]!r}")
        position = joined.end() if joined else position
    return conditions


def is_in_view(stage: str, view: str) -> bool:
    """Whether a lifecycle stage shows in a view."""
    return view == "ALL" or (stage == "active") == (view != "DELETED_ONLY")


def matches_experiment(experiment: JsonObject, conditions: list[Condition]) -> bool:
    """Decide on MLflow's message of the experiment."""
    tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
    return all(
        _holds(tags.get(condition.key) if condition.kind == "tag" else experiment[condition.key], condition)
        for condition in conditions
    )


def matches_run(run: JsonObject, conditions: list[Condition]) -> bool:
    """Decide on MLflow's message of the run."""
    return all(_holds(_value_of(run, condition), condition) for condition in conditions)


def order_runs(runs: list[JsonObject], orders: list[str]) -> list[JsonObject]:
    """Newest start first unless told otherwise; several orders apply first to last."""
    ordered = sorted(runs, key=lambda run: run["info"]["run_id"])
    ordered.sort(key=lambda run: run["info"].get("start_time") or 0, reverse=True)
    for order in reversed(orders):
        key, descends = _order_key(order)
        ordered.sort(key=lambda run, key=key: _sortable(_attribute(run, key)), reverse=descends)  # type: ignore[misc]
    return ordered


def page(call: Call, items: list[Any], default: int = 1000) -> tuple[list[Any], JsonObject]:
    """One page and, where more follows, its token."""
    wanted = call.number("max_results", default)
    if wanted <= 0:
        raise invalid(f"Invalid value {wanted} for parameter 'max_results' supplied. It must be positive.")
    size = min(wanted, call.settings.limits.search_page_size)
    start = read_token(call.find_text("page_token"))
    token = make_token(start + size) if start + size < len(items) else None
    return items[start : start + size], {"next_page_token": token} if token else {}


def make_token(offset: int) -> str:
    """A page token: opaque to clients."""
    return base64.b64encode(json.dumps({"offset": offset}).encode()).decode()


def read_token(token: str | None) -> int:
    """The offset a token stands for."""
    if not token:
        return 0
    try:
        return int(json.loads(base64.b64decode(token, validate=True))["offset"])
    except (ValueError, KeyError, TypeError) as error:
        raise invalid("Invalid page token.") from error


def _condition(match: re.Match[str], grammar: Grammar) -> Condition:
    kind = KINDS.get((match["kind"] or "attribute").lower())
    if kind is None or kind not in grammar.operators:
        raise invalid(f"{OR_REFUSAL} Unsupported entity type {match['kind']!r}.")
    operator = re.sub(r"\s+", " ", match["operator"].upper())
    if operator not in grammar.operators[kind]:
        raise invalid(f"{OR_REFUSAL} Operator {operator} is not supported for {kind}s.")
    key = match["key"].strip()
    if kind == "metric" and key[0] in '`"':
        raise invalid("Metric names that must be quoted are not supported in a filter string.")
    key = key.strip('`"')
    if kind == "attribute" and key not in grammar.attributes:
        raise invalid(f"{OR_REFUSAL} Attribute {key!r} is not supported.")
    return Condition(kind, key, operator, _literal(match["value"], kind, key, grammar))


def _literal(text: str, kind: str, key: str, grammar: Grammar) -> Any:
    if text.startswith("("):
        parts = re.findall(r"'((?:[^']|'')*)'|\"([^\"]*)\"", text)
        return [single or double for single, double in parts]
    is_quoted = text[0] in "'\""
    if kind == "metric":
        if is_quoted:
            raise invalid("Metric values in a filter string must be numbers.")
        return float(text)
    if not is_quoted and (kind != "attribute" or grammar.quotes_attributes):
        raise invalid(f"The value of {kind} {key!r} in a filter string must be quoted.")
    value = text[1:-1].replace("''", "'") if is_quoted else text
    if key in NUMBERS and kind == "attribute":
        try:
            return float(value)
        except ValueError as error:
            raise invalid(f"The value of {key!r} in a filter string must be a number.") from error
    return value


def _holds(actual: Any, condition: Condition) -> bool:
    return actual is not None and COMPARISONS[condition.operator](actual, condition.value)


def _value_of(run: JsonObject, condition: Condition) -> Any:
    if condition.kind == "attribute":
        return _attribute(run, condition.key)
    entries = run["data"][f"{condition.kind}s"]
    found = next((entry["value"] for entry in entries if entry["key"] == condition.key), None)
    return float(found) if condition.kind == "metric" and found is not None else found


def _attribute(run: JsonObject, key: str) -> Any:
    info = run["info"]
    if key == "duration":
        start, end = info.get("start_time"), info.get("end_time")
        return None if start is None or end is None else end - start
    return info.get(key)


def _order_key(order: str) -> tuple[str, bool]:
    match = re.fullmatch(r"\s*(?:(\w+)\.)?([\w` ]+?)(?:\s+(ASC|DESC))?\s*", order, re.IGNORECASE)
    kind = KINDS.get((match[1] or "attribute").lower()) if match else None
    key = match[2].strip("` ") if match else ""
    if match is None or kind != "attribute" or key not in RUNS.attributes:
        raise invalid(f"Unsupported order_by {order!r}: only attributes can be ordered by.")
    return key, (match[3] or "ASC").upper() == "DESC"


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None and not (isinstance(value, float) and math.isnan(value)), value or 0)


def _is_like(left: Any, right: Any, flags: int) -> bool:
    pattern = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in str(right))
    return re.fullmatch(pattern, str(left), flags | re.DOTALL) is not None
