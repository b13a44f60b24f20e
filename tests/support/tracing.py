"""A client of the trace calls, in-process, and the spans it sends."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests.support.tracking import Json, Tracking, tracking_server

V3 = "/api/3.0/mlflow/traces"
V2 = "/api/2.0/mlflow/traces"
SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
MISSING = "RESOURCE_DOES_NOT_EXIST"
INVALID = "INVALID_PARAMETER_VALUE"
ROOT = "00000000000000aa"
CHILD = "00000000000000bb"


class Tracer:
    """A client that makes traces in an experiment of its own."""

    def __init__(self, server: Tracking, experiment_id: str) -> None:
        self.server = server
        self.experiment_id = experiment_id

    async def start(self, **info: Any) -> str:
        """A trace without spans; its id."""
        trace_id = info.pop("trace_id", None) or f"tr-{uuid4().hex}"
        answer = await self.server.send("POST", V3, {"trace": {"trace_info": self.info(trace_id, **info)}})
        assert answer.status_code == 200, answer.text
        return str(trace_id)

    def info(self, trace_id: str, **info: Any) -> Json:
        """What a client says of a trace."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.experiment_id}}
        defaults = {
            "trace_id": trace_id,
            "trace_location": location,
            "request_time": "2024-01-02T03:04:05.678Z",
            "state": "OK",
        }
        return {**defaults, **info}

    async def export(self, body: bytes, **headers: str) -> httpx.Response:
        """An OTLP request as it comes over the wire."""
        sent = {
            "x-mlflow-experiment-id": self.experiment_id,
            "content-type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.server.http.post("/v1/traces", content=body, headers=sent)

    async def spans(self, *spans: Json, resource: Json | None = None, **headers: str) -> None:
        """Spans over OTLP."""
        answer = await self.export(json.dumps(request(*spans, resource=resource)).encode(), **headers)
        assert answer.status_code == 200, answer.text
        assert answer.content == b""

    async def get(self, trace_id: str) -> Json:
        """A trace without its spans."""
        return dict((await self.server.get(f"{V3}/{trace_id}"))["trace"]["trace_info"])

    async def whole(self, trace_id: str) -> Json:
        """A trace with its spans."""
        answer = await self.server.get(f"{V3}/get", trace_id=trace_id, allow_partial="true")
        return dict(answer["trace"])

    async def search(self, text: str = "", **fields: Any) -> list[str]:
        """The ids of the traces a search finds."""
        location = {"mlflow_experiment": {"experiment_id": self.experiment_id}}
        answer = await self.server.post(f"{V3}/search", locations=[location], filter=text, **fields)
        return [trace["trace_id"] for trace in answer.get("traces", [])]

    async def assess(self, trace_id: str, name: str, value: Any, **fields: Any) -> str:
        """Feedback; its id."""
        assessment = {
            "assessment_name": name,
            "source": {"source_type": "HUMAN"},
            "feedback": {"value": value},
            **fields,
        }
        answer = await self.server.post(f"{V3}/{trace_id}/assessments", assessment=assessment)
        return str(answer["assessment"]["assessment_id"])

    async def metrics(self, view: str, metric: str, *aggregations: Any, **fields: Any) -> list[Any]:
        """(dimensions, values) of every data point."""
        wanted = [
            {"aggregation_type": "PERCENTILE", "percentile_value": item}
            if isinstance(item, float)
            else {"aggregation_type": item}
            for item in aggregations
        ]
        answer = await self.server.post(
            f"{V3}/metrics",
            experiment_ids=[self.experiment_id],
            view_type=view,
            metric_name=metric,
            aggregations=wanted,
            **fields,
        )
        return [(point.get("dimensions", {}), point["values"]) for point in answer.get("data_points", [])]


def span(trace_id: str, span_id: str = ROOT, *, at: float = 0, takes: float = 1, **fields: Any) -> Json:
    """A span of OTLP in JSON; `attributes` are plain values."""
    attributes = fields.pop("attributes", {})
    start = START_NS + int(at * SECOND_NS)
    return {
        "traceId": trace_id.removeprefix("tr-"),
        "spanId": span_id,
        "name": "root",
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(start + int(takes * SECOND_NS)),
        "attributes": [{"key": key, "value": any_value(value)} for key, value in attributes.items()],
        "status": {"code": 1},
        **fields,
    }


def any_value(value: Any) -> Json:
    """A value in OTLP's words."""
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, dict):
        return {
            "kvlistValue": {"values": [{"key": key, "value": any_value(item)} for key, item in value.items()]}
        }
    return {"stringValue": value}


def request(*spans: Json, resource: Json | None = None) -> Json:
    """An export request."""
    attributes = [{"key": key, "value": any_value(value)} for key, value in (resource or {}).items()]
    return {
        "resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(spans)}]}]
    }


def usage(input_tokens: int, output_tokens: int) -> Json:
    """A span's token usage."""
    total = input_tokens + output_tokens
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total}
    return {"mlflow.chat.tokenUsage": counts}


def new_id() -> str:
    """A trace's id."""
    return f"tr-{uuid4().hex}"


@asynccontextmanager
async def tracing_server(database_url: str, data_dir: Path) -> AsyncIterator[Tracer]:
    """A client of a server on an empty database, with an experiment of its own."""
    async with tracking_server(database_url, data_dir) as server:
        yield Tracer(server, await server.experiment())
