"""Traces with the stock MLflow 3 client, as an application and as someone who looks at them later.

Usage: traces.py RECORD.json. The only settings are MLflow's own variables. The record holds what the
client's objects say, without ids and times, so that two servers' records can be compared as they are.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, SpanType
from mlflow.exceptions import MlflowException

EXPERIMENT = "traces"
FILTERS = (
    "trace.status = 'OK'",
    "trace.status = 'ERROR'",
    "trace.status != 'OK'",
    "trace.status IN ('OK', 'ERROR')",
    "trace.name = 'answer'",
    "name LIKE 'ans%'",
    "name ILIKE 'ANS%'",
    "name RLIKE '^(answer|fail)$'",
    "trace.execution_time_ms >= 0",
    "trace.timestamp_ms > 0",
    "trace.end_time_ms > 5",
    "tags.team = 'red'",
    "tag.team != 'red'",
    "tags.team IS NULL",
    "tags.team IS NOT NULL",
    "tags.team LIKE 'r%'",
    "metadata.`mlflow.trace.session` = 'session-1'",
    "metadata.`mlflow.trace.user` = 'ann'",
    "metadata.customer IS NULL",
    "span.name = 'retrieve'",
    "span.name LIKE 'retr%' AND span.type = 'RETRIEVER'",
    "span.name = 'answer' AND span.type = 'RETRIEVER'",
    "span.type IN ('TOOL', 'RETRIEVER')",
    "span.status = 'ERROR'",
    "span.attributes.k LIKE '%five%'",
    "span.attributes.k RLIKE '^five'",
    "trace.text LIKE '%deep%'",
    "span.content ILIKE '%DEEP%'",
    "feedback.helpful = 'true'",
    "feedback.score > 0.4",
    "feedback.score < 0.4",
    "feedback.grade = 'good'",
    "feedback.grade LIKE '%oo%'",
    "feedback.missing IS NULL",
    "feedback.score IS NOT NULL",
    "expectation.expected = 'blue'",
    "client_request_id = 'request-1'",
    "trace.status = 'OK' AND tags.team = 'red' AND span.name = 'retrieve'",
    "prompt = 'p/1'",
    "run_id = '{run_id}'",
)
REFUSED = (
    "nonsense = 'x'",
    "trace.nonsense = 'x'",
    "trace.status > 'OK'",
    "trace.status IS NULL",
    "timestamp_ms LIKE 'x'",
    "tags.team > 'x'",
    "tags.team = red",
    "span.colour = 'x'",
    "span.attributes. = 'x'",
    "trace.text = 'x'",
    "feedback.score = 5",
    "feedback.score > 'x'",
    "issue.name = 'x'",
    "prompt = 'p'",
    "prompt LIKE 'p/%'",
    "metadata.`mlflow.trace.tokenUsage` LIKE 'x'",
    "client_request_id IN 'x'",
    "timestamp_ms IN ('1')",
    "trace.status = 'OK' OR trace.status = 'ERROR'",
)
ORDERS = (
    None,
    ["timestamp_ms ASC"],
    ["timestamp_ms DESC"],
    ["status DESC", "timestamp_ms ASC"],
    ["tags.team ASC"],
    ["name DESC", "timestamp ASC"],
)


def main(record_path: str) -> None:
    """Trace, then look."""
    record: dict[str, Any] = {}
    experiment_id = mlflow.set_experiment(EXPERIMENT).experiment_id
    names = trace_something()
    client = MlflowClient()
    record["whole"] = {key: trace_record(mlflow.get_trace(trace_id)) for key, trace_id in names.items()}
    record["run"] = trace_in_run(names)
    assess(names, record)
    tag(client, names, record)
    run_id = link(client, names)
    search(experiment_id, names, run_id, record)
    delete(client, experiment_id, names, record)
    Path(record_path).write_text(json.dumps(record, indent=1, sort_keys=True))


def trace_something() -> dict[str, str]:
    """Four traces: nested, failing, in a session, and one by hand; their ids."""

    @mlflow.trace(span_type=SpanType.RETRIEVER, attributes={"k": "five"})
    def retrieve(query: str) -> list[str]:
        mlflow.get_current_active_span().add_event(mlflow.entities.SpanEvent("looked", attributes={"n": 1}))
        return [f"{query} deep"]

    @mlflow.trace(span_type=SpanType.CHAIN)
    def answer(question: str, session: str | None = None) -> str:
        if session:
            mlflow.update_current_trace(
                tags={"team": "red"},
                metadata={"mlflow.trace.session": session, "mlflow.trace.user": "ann"},
                client_request_id="request-1",
            )
        with mlflow.start_span("model", span_type=SpanType.LLM) as span:
            span.set_inputs({"messages": [{"role": "user", "content": question}]})
            span.set_attribute(
                "mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
            )
            span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "blue"}}]})
        return retrieve(question)[0]

    @mlflow.trace
    def fail() -> None:
        raise ValueError("broken")

    names = {}
    answer("what colour")
    names["plain"] = mlflow.get_last_active_trace_id()
    answer("what colour", "session-1")
    names["session"] = mlflow.get_last_active_trace_id()
    answer("again", "session-1")
    names["again"] = mlflow.get_last_active_trace_id()
    # Traces are ordered by milliseconds: the next one must not begin in the same.
    time.sleep(0.005)
    try:
        fail()
    except ValueError:
        names["failed"] = mlflow.get_last_active_trace_id()
    mlflow.flush_trace_async_logging()
    return names


def trace_record(trace: Any) -> dict[str, Any]:
    """A trace without what differs from one time to the next."""
    info = trace.info
    position = {span.span_id: index for index, span in enumerate(trace.data.spans)}
    return {
        "state": str(info.state),
        "previews": [info.request_preview, info.response_preview],
        "tags": {key: value for key, value in info.tags.items() if key != "mlflow.artifactLocation"},
        "metadata": {
            key: value
            for key, value in info.trace_metadata.items()
            if not key.startswith(("mlflow.source.", "mlflow.user", "mlflow.trace.size"))
        },
        "usage": info.token_usage,
        "spans": [
            {
                "name": span.name,
                "parent": position.get(span.parent_id),
                "type": span.span_type,
                "status": str(span.status.status_code),
                "message": span.status.description,
                "inputs": span.inputs,
                "outputs": span.outputs,
                "attributes": sorted(span.attributes),
                "events": [
                    [event.name, {k: v for k, v in event.attributes.items() if "stack" not in k}]
                    for event in span.events
                ],
                "took": span.end_time_ns >= span.start_time_ns,
            }
            for span in trace.data.spans
        ],
    }


def trace_in_run(names: dict[str, str]) -> list[str]:
    """A trace inside a run knows it."""
    with mlflow.start_run() as run:
        with mlflow.start_span("in-run"):
            pass
        mlflow.flush_trace_async_logging()
    names["in-run"] = mlflow.get_last_active_trace_id()
    found = mlflow.search_traces(run_id=run.info.run_id, return_type="list")
    return [trace.info.tags["mlflow.traceName"] for trace in found]


def assess(names: dict[str, str], record: dict[str, Any]) -> None:
    """Feedback and expectations: log, override, update, delete."""
    trace_id = names["session"]
    human = AssessmentSource(source_type="HUMAN", source_id="ann")
    mlflow.log_feedback(trace_id=trace_id, name="helpful", value=True, source=human, rationale="it is")
    score = mlflow.log_feedback(trace_id=trace_id, name="score", value=0.25)
    mlflow.override_feedback(trace_id=trace_id, assessment_id=score.assessment_id, value=0.5, source=human)
    mlflow.log_feedback(trace_id=trace_id, name="grade", value="good", metadata={"why": "so"})
    mlflow.log_feedback(trace_id=trace_id, name="broken", error=ValueError("no judge"))
    mlflow.log_feedback(trace_id=trace_id, name="list", value=["a", "b"])
    expected = mlflow.log_expectation(trace_id=trace_id, name="expected", value="red", source=human)
    mlflow.log_expectation(trace_id=trace_id, name="facts", value={"a": [1]}, source=human)
    mlflow.update_assessment(
        trace_id=trace_id,
        assessment_id=expected.assessment_id,
        assessment=mlflow.entities.Expectation(name="expected", value="blue", metadata={"m": "1"}),
    )
    doomed = mlflow.log_feedback(trace_id=trace_id, name="doomed", value=1)
    mlflow.delete_assessment(trace_id=trace_id, assessment_id=doomed.assessment_id)
    record["one"] = mlflow.get_assessment(trace_id, expected.assessment_id).value
    record["assessments"] = [
        [
            item.name,
            item.feedback.value if item.feedback else item.expectation.value,
            item.valid,
            item.source.source_type,
            item.rationale,
            item.metadata,
            bool(item.overrides),
            item.feedback.error.error_message if item.feedback and item.feedback.error else None,
        ]
        for item in mlflow.get_trace(trace_id).info.assessments
    ]
    record["unknown"] = refusal(lambda: mlflow.get_assessment(trace_id, "a-none"))


def tag(client: MlflowClient, names: dict[str, str], record: dict[str, Any]) -> None:
    """Set, change and delete tags."""
    trace_id = names["plain"]
    client.set_trace_tag(trace_id, "team", "blue")
    client.set_trace_tag(trace_id, "gone", "x")
    client.delete_trace_tag(trace_id, "gone")
    record["refused_tags"] = [
        refusal(lambda: client.delete_trace_tag(trace_id, "gone")),
        refusal(lambda: client.set_trace_tag(trace_id, "a//b", "x")),
    ]
    tags = client.get_trace(trace_id).info.tags
    record["tags"] = {key: value for key, value in tags.items() if not key.startswith("mlflow.artifact")}


def link(client: MlflowClient, names: dict[str, str]) -> str:
    """Link traces to a run, and a prompt to a trace."""
    with mlflow.start_run() as run:
        pass
    client.link_traces_to_run([names["plain"], names["failed"]], run.info.run_id)
    prompt = mlflow.genai.register_prompt("p", "Say {{what}}")
    client.link_prompt_versions_to_trace(prompt_versions=[prompt], trace_id=names["again"])
    return str(run.info.run_id)


def search(experiment_id: str, names: dict[str, str], run_id: str, record: dict[str, Any]) -> None:
    """All filters and orders, pages, and what is refused."""
    known = {trace_id: name for name, trace_id in names.items()}

    def find(**arguments: Any) -> list[str]:
        found = mlflow.search_traces(
            locations=[experiment_id], include_spans=False, return_type="list", **arguments
        )
        return [known[trace.info.trace_id] for trace in found]

    record["filters"] = {
        text: sorted(find(filter_string=text.replace("{run_id}", run_id))) for text in FILTERS
    }
    record["orders"] = {str(order): find(order_by=order) for order in ORDERS}
    record["refused"] = {text: bool(refusal(lambda text=text: find(filter_string=text))) for text in REFUSED}
    store = mlflow.tracing.client.TracingClient().store
    first, token = store.search_traces(locations=[experiment_id], max_results=2)
    rest, last = store.search_traces(locations=[experiment_id], max_results=100, page_token=token)
    record["pages"] = [[known[info.trace_id] for info in page] for page in (first, rest)] + [last]
    whole = mlflow.search_traces(locations=[experiment_id], return_type="list")
    record["with_spans"] = {known[trace.info.trace_id]: len(trace.data.spans) for trace in whole}


def delete(client: MlflowClient, experiment_id: str, names: dict[str, str], record: dict[str, Any]) -> None:
    """Some by id, the rest by time."""
    record["deleted"] = [
        client.delete_traces(experiment_id, trace_ids=[names["plain"]]),
        client.delete_traces(experiment_id, max_timestamp_millis=2**45, max_traces=1),
        client.delete_traces(experiment_id, max_timestamp_millis=2**45),
        client.delete_traces(experiment_id, max_timestamp_millis=2**45),
    ]
    record["left"] = len(mlflow.search_traces(locations=[experiment_id], return_type="list"))
    record["gone"] = mlflow.get_trace(names["plain"]) is None


def refusal(call: Any) -> str | None:
    """The error code of a call that is to be refused."""
    try:
        call()
    except MlflowException as error:
        return str(error.error_code)
    return None


if __name__ == "__main__":
    main(sys.argv[1])
