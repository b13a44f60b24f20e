"""The two sides of a flow, field by field, under the declared policy."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.stock import policy
from tests.conformance.stock.policy import ABSENT, How

_IN_PATH = re.compile(r"(?:[a-z]{1,2}-)?<id \d+>")
_ARTIFACTS = re.compile(r"(/api/2\.0/mlflow-artifacts/artifacts)/.*")
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not the same, and is not declared."""

    flow: str
    where: str
    field: str
    proxy: Any
    stock: Any

    def __str__(self) -> str:
        return f"{self.flow} | {self.where} | {self.field} | proxy: {self.proxy!r} | stock: {self.stock!r}"


@dataclass(slots=True)
class Comparison:
    """What was compared, and what was found."""

    version: str
    flows: int = 0
    requests: int = 0
    fields: int = 0
    ignored: int = 0
    declared: int = 0
    broken_on_stock: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    rules_met: Counter[policy.Rule] = field(default_factory=Counter)

    def add(self, name: str, proxy: Record, stock: Record) -> None:
        """Compare one flow."""
        if "skipped" in stock:
            self.skipped[name] = stock["skipped"]
            return
        self.flows += 1
        if "broke" in stock:
            self.broken_on_stock[name] = stock["broke"]
        self._field(name, "flow", ("broke",), proxy.get("broke"), stock.get("broke"))
        for where, proxy_call, stock_call in _pairs(name, proxy["calls"], stock["calls"]):
            self.requests += 1
            self._walk(name, where, (), proxy_call, stock_call)
        proxy_results = {result["label"]: result for result in proxy["results"]}
        stock_results = {result["label"]: result for result in stock["results"]}
        for label in dict.fromkeys([*stock_results, *proxy_results]):
            proxy_result, stock_result = proxy_results.get(label), stock_results.get(label)
            where = _entity(stock_result or proxy_result or {})
            self._walk(f"{name}: {label}", where, (), _value(proxy_result), _value(stock_result))

    def summary(self) -> str:
        """The counts in a line."""
        return (
            f"mlflow {self.version}: {self.flows} flows, {self.requests} requests, {self.fields} fields,"
            f" {self.ignored} not compared, {self.declared} declared differences,"
            f" {len(self.differences)} others"
        )

    def _walk(self, flow: str, where: str, path: tuple[str, ...], proxy: Any, stock: Any) -> None:
        if isinstance(proxy, dict) and isinstance(stock, dict):
            for key in dict.fromkeys([*stock, *proxy]):
                self._walk(flow, where, (*path, key), proxy.get(key, ABSENT), stock.get(key, ABSENT))
        elif isinstance(proxy, list) and isinstance(stock, list) and (proxy or stock):
            rule = policy.find_rule(flow, where, path, proxy, stock)
            if rule is not None and rule.how is How.ANY_ORDER:
                proxy, stock = _sorted(proxy), _sorted(stock)
            proxy_items, stock_items = _by_key(proxy, stock)
            for key in dict.fromkeys([*stock_items, *proxy_items]):
                step = (*path, key)
                self._walk(flow, where, step, proxy_items.get(key, ABSENT), stock_items.get(key, ABSENT))
        else:
            self._field(flow, where, path, proxy, stock)

    def _field(self, flow: str, where: str, path: tuple[str, ...], proxy: Any, stock: Any) -> None:
        self.fields += 1
        rule = policy.find_rule(flow, where, path, proxy, stock)
        is_same = _same(proxy, stock)
        if rule is not None and not is_same:
            self.rules_met[rule] += 1
        if rule is not None and rule.how is How.IGNORE:
            self.ignored += 1
        elif is_same:
            return
        elif rule is None:
            self.differences.append(Difference(flow, where, "/".join(path), proxy, stock))
        else:
            self.declared += 1


def _same(proxy: Any, stock: Any) -> bool:
    return type(proxy) is type(stock) and proxy == stock


def _sorted(items: list[Any]) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


def _entity(result: Record) -> str:
    value = result["value"]
    return "error" if isinstance(value, dict) and "raised" in value else f"entity {result['kind']}"


def _value(result: Record | None) -> Any:
    return ABSENT if result is None else result["value"]


def route(call: Record) -> str:
    """Method and path, without ids."""
    path = _IN_PATH.sub("{id}", call["path"])
    path = _ARTIFACTS.sub(r"\1/{path}", path)
    return f"{call['method']} {path}"


def _pairs(flow: str, proxy: list[Record], stock: list[Record]) -> Iterator[tuple[str, Any, Any]]:
    """The same request on both sides, in order among its like."""
    waiting: dict[str, list[Record]] = defaultdict(list)
    for call in proxy:
        waiting[_likeness(call)].append(call)
    for call in stock:
        where = route(call)
        like = waiting[_likeness(call)]
        if like:
            yield where, _seen(like.pop(0)), _seen(call)
        elif not policy.is_repeated_freely(flow, where):
            yield where, ABSENT, _title(call)
    for calls in waiting.values():
        for call in calls:
            if not policy.is_repeated_freely(flow, route(call)):
                yield route(call), _title(call), ABSENT


def _likeness(call: Record) -> str:
    return f"{call['method']} {call['path']} {call['query']}"


def _title(call: Record) -> str:
    return f"{call['status']} {_likeness(call)}"


def _seen(call: Record) -> Record:
    return {name: call.get(name, ABSENT) for name in ("sent", "status", "headers", "answer")}


def _by_key(proxy: list[Any], stock: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The items of two lists by their `key`, where that tells them apart; else by place."""
    found = []
    for items in (proxy, stock):
        keys = [item.get("key") if isinstance(item, dict) else None for item in items]
        found.append(
            None if None in keys or len(set(keys)) < len(keys) else dict(zip(keys, items, strict=True))
        )
    if found[0] is None or found[1] is None:
        return tuple({str(place): item for place, item in enumerate(items)} for items in (proxy, stock))  # type: ignore[return-value]
    return found[0], found[1]
