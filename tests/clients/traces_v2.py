"""Traces with a stock MLflow 2 client. Usage: traces_v2.py RECORD.json, as `traces.py`."""

import json
import sys
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

EXPERIMENT = "traces"


def main(record_path: str) -> None:
    """Trace, search, tag, delete; then the same with the client's own calls."""
    record: dict[str, Any] = {}
    experiment_id = mlflow.set_experiment(EXPERIMENT).experiment_id
    client = MlflowClient()

    @mlflow.trace(span_type="RETRIEVER", attributes={"k": "five"})
    def retrieve(query: str) -> str:
        return f"{query} deep"

    @mlflow.trace
    def answer(question: str) -> str:
        mlflow.update_current_trace(tags={"team": "red"})
        return retrieve(question)

    answer("what colour")
    _flush()
    record["whole"] = trace_record(client.get_trace(mlflow.get_last_active_trace_id()))

    root = client.start_trace("by hand", inputs={"q": 1}, tags={"team": "blue"}, experiment_id=experiment_id)
    child = client.start_span("child", root.request_id, root.span_id, inputs={"x": 2})
    client.end_span(root.request_id, child.span_id, outputs={"y": 3}, status="ERROR")
    client.end_trace(root.request_id, outputs={"a": 2}, status="ERROR")
    _flush()
    record["by_hand"] = trace_record(client.get_trace(root.request_id))
    client.set_trace_tag(root.request_id, "extra", "1")
    client.set_trace_tag(root.request_id, "gone", "1")
    client.delete_trace_tag(root.request_id, "gone")

    def find(**arguments: Any) -> list[str]:
        found = client.search_traces(experiment_ids=[experiment_id], **arguments)
        return [trace.info.tags["mlflow.traceName"] for trace in found]

    record["found"] = {
        text: sorted(find(filter_string=text))
        for text in (
            "attributes.status = 'OK'",
            "attributes.status = 'ERROR'",
            "tags.team = 'red'",
            "tags.extra = '1'",
            "attributes.name = 'by hand'",
            "attributes.timestamp_ms > 0",
        )
    }
    record["order"] = find(order_by=["timestamp_ms ASC"])
    record["frame"] = sorted(mlflow.search_traces(experiment_ids=[experiment_id])["request"].astype(str))
    record["page"] = len(client.search_traces(experiment_ids=[experiment_id], max_results=1))
    record["refused"] = _refusal(lambda: find(filter_string="nonsense = 'x'"))
    record["deleted"] = [
        client.delete_traces(experiment_id, request_ids=[root.request_id]),
        client.delete_traces(experiment_id, max_timestamp_millis=2**45),
    ]
    record["left"] = find()
    Path(record_path).write_text(json.dumps(record, indent=1, sort_keys=True))


def trace_record(trace: Any) -> dict[str, Any]:
    """A trace without what differs from one time to the next."""
    info = trace.info
    return {
        "status": str(info.status),
        "tags": {
            key: value
            for key, value in info.tags.items()
            if not key.startswith(("mlflow.artifact", "mlflow.source", "mlflow.user"))
        },
        "metadata": sorted(info.request_metadata),
        "data": [trace.data.request, trace.data.response],
        "spans": [
            [span.name, span.parent_id is None, span.span_type, span.inputs, span.outputs]
            for span in trace.data.spans
        ],
    }


def _flush() -> None:
    flush = getattr(mlflow, "flush_trace_async_logging", None)
    if flush is not None:
        flush()


def _refusal(call: Any) -> str | None:
    try:
        call()
    except MlflowException as error:
        return str(error.error_code)
    return None


if __name__ == "__main__":
    main(sys.argv[1])
