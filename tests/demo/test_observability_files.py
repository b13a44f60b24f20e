"""The dashboard and the alert rules name figures that the server has, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from server.telemetry.metrics import Telemetry

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/mlproxy.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/prometheus/mlproxy-alerts.yml").read_text())["groups"][0]["rules"]
NAME = re.compile(r"\bmlproxy_\w+")


def _known() -> set[str]:
    """Every figure that a server can show, with the endings that Prometheus gives a histogram's."""
    shown = Telemetry().render({}, {}).decode()
    declared = set(re.findall(r"^# TYPE (mlproxy_\w+)", shown, flags=re.MULTILINE))
    return declared | {f"{name}{ending}" for name in declared for ending in ("_bucket", "_count", "_total")}


def _expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [
        rule["expr"] for rule in RULES
    ]


def test_every_figure_in_use_exists() -> None:
    """A panel or an alert on a name that nobody writes would stay empty for ever."""
    used = {name for expression in _expressions() for name in NAME.findall(expression)}
    assert len(used) > 15
    assert used - _known() == set()


def test_the_figures_an_operator_lives_by_are_all_shown() -> None:
    """Lag, backlog, parked, uncertain, token, throttling, clients told to wait."""
    used = {name for expression in _expressions() for name in NAME.findall(expression)}
    assert used >= {
        "mlproxy_oldest_pending_age_seconds",
        "mlproxy_pending",
        "mlproxy_parked",
        "mlproxy_uncertain",
        "mlproxy_overflow",
        "mlproxy_token_expiry_seconds",
        "mlproxy_backpressure_total",
        "mlproxy_replayed_total",
        "mlproxy_retries_total",
        "mlproxy_lease_lost_total",
    }


def test_expressions_are_closed_and_alerts_say_what_to_do() -> None:
    """Brackets match, severities are known, and no alert leaves its reader alone."""
    for expression in _expressions():
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["description"]) > 20
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
