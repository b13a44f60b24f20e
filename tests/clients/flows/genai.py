"""Flows about traces and webhooks."""

import contextlib
from typing import Any

import mlflow
from mlflow import MlflowClient
from recording import Recorder, flow
from tracking import experiment

MISSING_TRACE = "tr-" + "0" * 32


def make_trace(name: str, question: str = "why", fails: bool = False) -> str:
    """A trace of two spans; its id."""

    @mlflow.trace(name=name, span_type="CHAIN", attributes={"k": "v"})
    def outer(question: str) -> str:
        with mlflow.start_span("inner", span_type="LLM") as span:
            span.set_inputs({"prompt": question})
            span.set_outputs({"answer": "because"})
            if fails:
                raise ValueError("no answer")
        return "because"

    with contextlib.suppress(ValueError):
        outer(question)
    return str(mlflow.get_last_active_trace_id())


@flow(since=(3, 0))
def traces(record: Recorder) -> None:
    """Traces are made, read, tagged, judged, searched and deleted."""
    own, client = experiment("flows/traces"), MlflowClient()
    first = make_trace("answers")
    second = make_trace("fails", "what", fails=True)
    with mlflow.start_run(run_name="traced") as run:
        third = make_trace("in a run")
    for label, trace_id in (("first", first), ("second", second), ("third", third)):
        trace = mlflow.get_trace(trace_id)
        record.note(f"{label} info", _without_spans(trace))
        record.note(
            f"{label} spans",
            [(span.name, span.span_type, span.inputs, span.outputs) for span in trace.data.spans],
        )
    client.set_trace_tag(first, "k", "v")
    client.set_trace_tag(first, "gone", "x")
    client.delete_trace_tag(first, "gone")
    record.error("tag is gone", lambda: client.delete_trace_tag(first, "gone"))
    feedback = mlflow.log_feedback(trace_id=first, name="right", value=True, rationale="it is")
    expectation = mlflow.log_expectation(trace_id=first, name="expected", value={"a": 1})
    record.note("feedback", feedback.value)
    changed = mlflow.entities.Feedback(name="right", value=False)
    record.error("changed", lambda: mlflow.update_assessment(first, feedback.assessment_id, changed))
    record.error("one", lambda: mlflow.get_assessment(first, expectation.assessment_id))
    mlflow.delete_assessment(first, expectation.assessment_id)
    record.error("gone", lambda: mlflow.get_assessment(first, expectation.assessment_id))
    record.note("tags", mlflow.get_trace(first).info.tags)

    def names(filter_string: str = "", **options: Any) -> list[str]:
        found = client.search_traces(
            locations=[own], filter_string=filter_string, include_spans=False, **options
        )
        return [trace.info.tags.get("mlflow.traceName", "") for trace in found]

    for text in (
        "",
        "status = 'OK'",
        "trace.status = 'ERROR'",
        "tags.k = 'v'",
        "timestamp_ms > 0",
        "name = 'answers'",
        f"run_id = '{run.info.run_id}'",
        "feedback.right = 'false'",
        "span.name = 'inner'",
        "span.type = 'LLM'",
        "nonsense",
        "colour = 'red'",
    ):
        record.error(f"filter {text}", lambda text=text: names(text))
    record.error("oldest first", lambda: names(order_by=["timestamp_ms ASC"]))
    record.error("one of them", lambda: len(names(max_results=1)))
    record.error("missing", lambda: client.get_trace(MISSING_TRACE))
    record.error("tag missing", lambda: client.set_trace_tag(MISSING_TRACE, "a", "b"))
    record.note("deleted", client.delete_traces(own, trace_ids=[second]))
    record.error("is deleted", lambda: client.get_trace(second))
    record.note("left", names(order_by=["timestamp_ms ASC"]))


def _without_spans(trace: Any) -> dict[str, Any]:
    info = trace.info
    kept = (
        "trace_id",
        "state",
        "request_preview",
        "response_preview",
        "tags",
        "trace_metadata",
        "assessments",
    )
    return {name: getattr(info, name) for name in kept}


@flow(since=(2, 14), until=(3, 0))
def traces_of_2(record: Recorder) -> None:
    """A client of 2.x makes traces in its own format and reads them back."""
    own, client = experiment("flows/traces 2"), MlflowClient()
    first, second = make_trace("answers"), make_trace("fails", "what", fails=True)
    with mlflow.start_span("by hand") as span:
        span.set_inputs({"q": "why"})
        mlflow.update_current_trace(tags={"k": "v"})
        with mlflow.start_span("inner"):
            pass
        span.set_outputs({"a": "because"})
    third = span.request_id
    for label, trace_id in (("first", first), ("second", second), ("third", third)):
        trace = client.get_trace(trace_id)
        record.note(f"{label} status", trace.info.status)
        record.note(
            f"{label} spans",
            [(item.name, item.span_type, item.inputs, item.outputs) for item in trace.data.spans],
        )
    client.set_trace_tag(third, "a", "b")
    client.delete_trace_tag(third, "a")
    record.error("tag is gone", lambda: client.delete_trace_tag(third, "a"))

    def names(filter_string: str | None = None, **options: Any) -> list[str]:
        found = client.search_traces([own], filter_string=filter_string, **options)
        return [trace.info.tags["mlflow.traceName"] for trace in found]

    for text in (
        "tags.k = 'v'",
        "attributes.status = 'OK'",
        "attributes.status = 'ERROR'",
        "attributes.name = 'answers'",
        "attributes.timestamp_ms > 0",
        "colour = 'red'",
    ):
        record.error(f"filter {text}", lambda text=text: sorted(names(text)))
    record.error("oldest first", lambda: names(order_by=["timestamp_ms ASC"]))
    record.error("one of them", lambda: len(names(max_results=1)))
    record.note("deleted", client.delete_traces(own, request_ids=[first]))
    record.error("missing", lambda: client.get_trace(first))
    record.note("deleted by time", client.delete_traces(own, max_timestamp_millis=2**45))
    record.note("left", names())


@flow(since=(3, 3))
def webhooks(record: Recorder) -> None:
    """Webhooks are made, read, changed and deleted."""
    client = MlflowClient()
    url = (
        "https://1.1.1.1/hook"  # checked when it is given, and never called: nothing happens to a model here
    )
    made = client.create_webhook("made", url, ["registered_model.created"], description="text")
    record.note("made", made)
    record.note("read", client.get_webhook(made.webhook_id))
    client.create_webhook(
        "other", url, ["model_version.created", "model_version_tag.set"], status="DISABLED", secret="x"
    )
    record.note("changed", client.update_webhook(made.webhook_id, name="renamed", status="DISABLED"))
    record.note("all", client.list_webhooks())
    record.note("page", len(client.list_webhooks(max_results=1)))
    record.error(
        "odd url", lambda: client.create_webhook("odd", "ftp://example.org", ["registered_model.created"])
    )
    record.error("no name", lambda: client.create_webhook("", url, ["registered_model.created"]))
    record.error("no events", lambda: client.create_webhook("none", url, []))
    record.error("odd event", lambda: client.create_webhook("odd", url, ["registered_model.deleted"]))
    record.error("missing", lambda: client.get_webhook("0" * 32))
    client.delete_webhook(made.webhook_id)
    record.error("deleted", lambda: client.get_webhook(made.webhook_id))
    record.error("delete again", lambda: client.delete_webhook(made.webhook_id))
    for webhook in client.list_webhooks():
        client.delete_webhook(webhook.webhook_id)
