"""OpenTelemetry: spans of requests, commits and deliveries reach a collector, and secrets do not."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.telemetry.tracing import open_tracing
from server.upstream.channel import create_http_client
from tests.support.collector import CollectedSpan, Collector
from tests.support.emulator import REPOSITORY, EmulatorProcess
from tests.support.server import ServerProcess

API = "/api/2.0/mlflow"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
STEPS = 10
SECRET = "a-value-that-only-the-run-may-hold"
PASSWORD = "mlp_0123456789ab_never-to-be-seen"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Where spans go."""
    with Collector() as running:
        yield running


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[EmulatorProcess]:
    """A workspace."""
    with EmulatorProcess.start(tmp_path / "workspace") as running:
        yield running


@pytest.fixture
def server(collector: Collector, emulator: EmulatorProcess, tmp_path: Path) -> Iterator[ServerProcess]:
    """A proxy that is traced."""
    settings = {
        "MLPROXY_WORKSPACE": emulator.tracking_uri,
        "MLPROXY_CREDENTIAL": "managed-identity",
        **emulator.environment(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ours",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_SERVICE_NAME": "tracking",
    }
    with ServerProcess.start(tmp_path / "proxy", **settings) as running:
        yield running


def post(server: ServerProcess, call: str, body: dict[str, object], **headers: str) -> httpx.Response:
    """One call of a client's."""
    answer = httpx.post(f"{server.url}{API}/{call}", json=body, headers=headers, trust_env=False)
    assert answer.is_success, answer.text
    return answer


def test_a_request_its_commit_and_its_delivery_are_told_of(
    server: ServerProcess, collector: Collector
) -> None:
    """The request is below its caller's span; the group and the delivery link to the request."""
    run = post(server, "runs/create", {"experiment_id": "0", "start_time": 1}).json()["run"]["info"]
    post(
        server,
        "runs/log-parameter",
        {"run_id": run["run_id"], "key": "secret", "value": SECRET},
        traceparent=f"00-{TRACE}-{CALLER}-01",
        Authorization=f"Bearer {PASSWORD}",
        **{"X-Request-Id": "job-17"},
    )
    assert server.cli("drain").returncode == 0

    def is_logged(span: CollectedSpan) -> bool:
        return span.name == f"POST {API}/runs/log-parameter"

    (request,) = collector.await_spans(is_logged)
    assert (request.trace_id, request.parent_id) == (TRACE, CALLER)
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["mlproxy.request_id"] == "job-17"
    collector.await_spans(lambda span: span.name == "commit group" and request.span_id in span.links)
    (delivery, *_) = collector.await_spans(
        lambda span: span.name.startswith("deliver ") and request.span_id in span.links
    )
    assert delivery.attributes["mlproxy.run_id"] == run["run_id"]
    called = [event for event in delivery.events if event["name"] == "workspace called"]
    assert called
    assert all(len(event["x-ms-client-request-id"]) == 36 for event in called)
    assert collector.services == {"tracking"}
    assert collector.headers[0]["x-tenant"] == "ours"
    told = b"".join(collector.bodies)
    assert run["run_id"].encode() in told
    assert SECRET.encode() not in told
    assert PASSWORD.encode() not in told


def test_a_delivery_links_only_to_those_who_wrote_what_it_carries(
    server: ServerProcess, collector: Collector
) -> None:
    """Two runs written at the same time: each delivery knows its own requests."""
    # The same create twice would be taken for one that is asked again.
    runs = [
        post(server, "runs/create", {"experiment_id": "0", "start_time": number}).json()["run"]["info"][
            "run_id"
        ]
        for number in range(2)
    ]
    callers = {run: f"{number + 1:032x}" for number, run in enumerate(runs)}
    for step in range(STEPS):
        for run in runs:
            body = {"run_id": run, "key": "loss", "value": 1.0, "timestamp": 1, "step": step}
            post(server, "runs/log-metric", body, traceparent=f"00-{callers[run]}-{CALLER}-01")
    assert server.cli("drain").returncode == 0
    written = {run: await_linked(collector, run, callers[run]) for run in runs}
    for run in runs:
        others = set().union(*written.values()) - written[run]
        assert len(others) == STEPS
        assert not others & linked_from(collector, run)


def linked_from(collector: Collector, run_id: str) -> set[str]:
    """The spans that a run's deliveries link to."""
    deliveries = [span for span in collector.spans if span.name.startswith("deliver ")]
    return {
        link for span in deliveries if span.attributes.get("mlproxy.run_id") == run_id for link in span.links
    }


def await_linked(collector: Collector, run_id: str, trace_id: str) -> set[str]:
    """The spans of a run's requests, once its deliveries link to all of them."""
    deadline = time.monotonic() + 120
    while True:
        own = {span.span_id for span in list(collector.spans) if span.trace_id == trace_id}
        if len(own) == STEPS and own <= linked_from(collector, run_id):
            return own
        assert time.monotonic() < deadline, (len(own), len(own & linked_from(collector, run_id)))
        time.sleep(0.1)


def test_spans_sent_to_us_make_no_spans_of_ours(tmp_path: Path) -> None:
    """A server that is its own collector does not trace that it is traced."""
    server = ServerProcess.prepare(tmp_path, OTEL_BSP_SCHEDULE_DELAY="100")
    headers = "x-mlflow-experiment-id=0"
    server.restart(OTEL_EXPORTER_OTLP_ENDPOINT=server.url, OTEL_EXPORTER_OTLP_HEADERS=headers)
    with server:
        post(server, "experiments/create", {"name": "one"})
        body = {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]}
        deadline = time.monotonic() + 120
        while not (traces := search_traces(server, body)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        time.sleep(1)
        # Those of the search itself have come meanwhile, and nothing about how they came.
        assert "/v1/traces" not in json.dumps(search_traces(server, body))
        assert traces


def search_traces(server: ServerProcess, body: dict[str, object]) -> list[dict[str, object]]:
    """The traces that a server holds."""
    answer = httpx.post(f"{server.url}/api/3.0/mlflow/traces/search", json=body, trust_env=False)
    assert answer.is_success, answer.text
    return list(answer.json().get("traces", []))


def test_the_workspace_is_told_which_span_calls_it(collector: Collector) -> None:
    """`traceparent` goes out with a call that is made inside a span, and with no other."""
    tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, version="1")
    assert tracing is not None

    async def call() -> None:
        async with create_http_client(tracing) as http:
            await http.post(f"{collector.url}/outside")
            with tracing.request("GET", {"traceparent": f"00-{TRACE}-{CALLER}-01"}):
                await http.post(f"{collector.url}/inside")

    asyncio.run(call())
    tracing.close()
    outside, inside = collector.headers[:2]
    assert "traceparent" not in outside
    assert inside["traceparent"].startswith(f"00-{TRACE}-")
    assert CALLER not in inside["traceparent"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_without_an_endpoint_nothing_is_traced(environment: dict[str, str]) -> None:
    """Nor where the standard variables say so, or want what is not spoken."""
    assert open_tracing(environment, version="1") is None


def test_who_is_not_traced_does_not_load_opentelemetry() -> None:
    """Building the whole server imports nothing of the SDK."""
    code = "import server.bootstrap, sys; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.strip() == "False"


def test_a_collector_that_is_away_costs_clients_nothing(tmp_path: Path) -> None:
    """Calls are answered, the server stops in good time, and the log is not full of it."""
    with ServerProcess.start(
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    ) as server:
        for number in range(20):
            post(server, "experiments/create", {"name": f"experiment {number}"})
        assert server.stop() == 0
        assert "Traceback" not in server.log_file.read_text()
