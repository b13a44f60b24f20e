"""A small request does not become much work or much memory: sizes are counted while they stream in."""

import gzip
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.protocol.bulk import MOST_CONTAINERS
from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

CREATE = "/api/2.0/mlflow/experiments/create"
TRACES = "/v1/traces"
CREATE_RUN = "/api/2.0/mlflow/runs/create"
LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
JSON = {"Content-Type": "application/json"}
MEBIBYTE = 1024 * 1024
# What the server may grow by while it refuses, and for how long it may keep anybody else waiting meanwhile:
# what counts of a wait is the time in which the server worked, for the machine may have other things to do.
MOST_GROWTH_BYTES = 220 * MEBIBYTE
LONGEST_WAIT_SECONDS = 2.0


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content


def _nested_values(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        value = _field(5, _field(1, value))
    return value


def _protobuf(coding: str) -> dict[str, str]:
    kind = "application/x-protobuf"
    return {"x-mlflow-experiment-id": "0", "Content-Type": kind, "Content-Encoding": coding}


PROTOBUF = _protobuf("gzip")
OTLP_JSON = {**PROTOBUF, **JSON}
# The empty messages of each kind that there may be many of: 60 kB compressed, 5 GB when they are made.
_LISTS = b"[]," * 8_000_000
_spans = _field(1, _field(2, b"\x12\x00" * 8_000_000))
_attributes = _field(1, _field(2, _field(2, b"\x4a\x00" * 8_000_000)))
_deep = _field(1, _field(1, _field(1, _field(2, _nested_values(5000)))))
_numbers = _field(1, _field(2, _field(2, b"\x38\x00" * 8_000_000)))
BOMBS: dict[str, tuple[str, dict[str, str], bytes]] = {
    "lists beside a null": (CREATE, JSON, b'{"name":null,"x":[' + b"[]," * 5_000_000 + b"[]]}"),
    "objects beside a wrong type": (CREATE, JSON, b'{"name":5,"x":[' + b"{}," * 5_000_000 + b"{}]}"),
    "many values": (CREATE, JSON, b'{"name":null,"x":[' + b"1.5," * 5_000_000 + b"1]}"),
    "many fields": (CREATE, JSON, b'{"name":null,' + b'"a":1,' * 3_000_000 + b'"b":1}'),
    "deep lists": (CREATE, JSON, b'{"x":' + b"[" * 10_000_000 + b"]" * 10_000_000 + b"}"),
    "deep objects": (CREATE, JSON, b'{"name":null,"x":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}"),
    "deep in a string": (CREATE, JSON, json.dumps('{"x":' + "[" * 200_000).encode()),
    "body of 40 MB": (CREATE, JSON, b'{"name":"' + b"a" * 40_000_000 + b'"}'),
    "long number": (CREATE_RUN, JSON, b'{"experiment_id":"0","start_time":' + b"9" * 10_000_000 + b"}"),
    "gzip of zeros": (TRACES, PROTOBUF, gzip.compress(bytes(300_000_000), 1)),
    "gzip in gzip": (TRACES, PROTOBUF, gzip.compress(gzip.compress(bytes(300_000_000), 1), 1)),
    "gzip members": (TRACES, PROTOBUF, gzip.compress(b"") * 200_000),
    "deflate of zeros": (TRACES, _protobuf("deflate"), zlib.compress(bytes(300_000_000), 1)),
    "unknown coding": (TRACES, _protobuf("zstd"), b"\x28\xb5\x2f\xfd" + bytes(1000)),
    "two codings": (TRACES, _protobuf("gzip, gzip"), gzip.compress(b"")),
    "empty spans": (TRACES, PROTOBUF, gzip.compress(_spans, 6)),
    "empty attributes": (TRACES, PROTOBUF, gzip.compress(_attributes, 6)),
    "repeated numbers": (TRACES, PROTOBUF, gzip.compress(_numbers, 6)),
    "deep values": (TRACES, PROTOBUF, gzip.compress(_deep)),
    "lists in OTLP's JSON": (TRACES, OTLP_JSON, gzip.compress(b'{"x":[' + _LISTS + b"[]]}")),
    "deep OTLP JSON": (TRACES, OTLP_JSON, gzip.compress(b'{"resourceSpans":' + b"[" * 10_000_000)),
    "bytes that are no OTLP": (TRACES, PROTOBUF, gzip.compress(b"\x0a\xff\xff\xff\xff\x0f" * 1000)),
}  # fmt: skip


@pytest.fixture
def calm(server: ServerProcess) -> Iterator[None]:
    """Holds the server to its memory and to its other clients while a test attacks it."""
    longest, done = [0.0], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as client:
            while not done.wait(0.02):
                started, worked = time.monotonic(), _worked_seconds(server.pid)
                client.get("/health")
                waited = min(time.monotonic() - started, _worked_seconds(server.pid) - worked)
                longest[0] = max(longest[0], waited)

    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the highest memory use starts anew
    before = _peak_bytes(server.pid)
    asking = threading.Thread(target=ask)
    asking.start()
    yield
    done.set()
    asking.join()
    assert _peak_bytes(server.pid) - before < MOST_GROWTH_BYTES
    assert longest[0] < LONGEST_WAIT_SECONDS


def _worked_seconds(pid: int) -> float:
    """The processor time that a process has had."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_does_not_go_off(writer: httpx.Client, bomb: tuple[str, dict[str, str], bytes]) -> None:
    """Refused, in bounded memory, while others are answered."""
    path, headers, body = bomb
    try:
        answer = writer.post(path, headers=headers, content=body)
    except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        return  # refused before all of it was sent
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.content) < 2000


def test_a_body_without_a_length_is_counted(server: ServerProcess, keys: dict[str, str]) -> None:
    """Chunk by chunk, and given up at the limit."""
    head = request_bytes(
        CREATE,
        f"Authorization: Bearer {keys['write']}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        method="POST",
    )
    chunk = b"100000\r\n" + b" " * MEBIBYTE + b"\r\n"
    assert send_raw(server.port, head, *[chunk] * 40).status in (0, 413)


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    "path", [CREATE, TRACES, "/login", "/graphql", "/api/2.0/mlflow-artifacts/artifacts/a"]
)
def test_a_strangers_body_is_not_read(server: ServerProcess, path: str) -> None:
    """The answer comes before the body has."""
    method = "PUT" if path.endswith("/a") else "POST"
    lines = ["Content-Length: 1000000000", "Content-Type: application/json"]
    answer = send_raw(server.port, request_bytes(path, *lines, method=method), b"x" * 100_000, patience=5)
    assert answer.status in (0, 400, 401, 413), answer


_METRIC = {"key": "a", "value": 1, "timestamp": 1}
QUERIES = {
    "page size": ("/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"], "max_results": 10**9}),
    "metrics": (LOG_BATCH, {"run_id": "RUN", "metrics": [_METRIC] * 1001}),
    "params": (LOG_BATCH, {"run_id": "RUN", "params": [{"key": str(n), "value": "1"} for n in range(101)]}),
    "long key": (LOG_BATCH, {"run_id": "RUN", "metrics": [{**_METRIC, "key": "k" * 10_000}]}),
    "long name": (CREATE, {"name": "n" * 100_000}),
    "traces": ("/api/3.0/mlflow/traces/search", {"locations": [], "max_results": 10**9}),
}  # fmt: skip


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_one_request_is_bounded_work(
    writer: httpx.Client, run_id: str, query: tuple[str, dict[str, object]]
) -> None:
    """Pages, batches, names and values have MLflow's limits."""
    path, fields = query
    answer = writer.post(path, content=json.dumps(fields).replace('"RUN"', f'"{run_id}"'), headers=JSON)
    assert answer.status_code == 400, answer.text


@pytest.mark.usefixtures("calm")
def test_graphql_does_no_more_than_its_four_queries(
    writer: httpx.Client, record_property: Callable[[str, object], None]
) -> None:
    """Aliases, depth, fragments that refer to each other and introspection are not interpreted."""
    queries = [
        "query X { "
        + " ".join(f"a{n}: mlflowGetRun {{ run {{ info {{ runId }} }} }}" for n in range(5000))
        + " }",
        "query Y { " + "a { " * 5000 + "}" * 5000 + " }",
        "query Z { ...A } fragment A on Q { ...B } fragment B on Q { ...A }",
        "{ __schema { types { name fields { name type { name fields { name } } } } } }",
        "[" * 100_000,
    ]
    for query in queries:
        answer = writer.post("/graphql", json={"query": query, "operationName": "X", "variables": {}})
        assert answer.status_code in (200, 400), answer.text
        assert len(answer.content) < 10_000
        assert "runId" not in answer.text
    batch = writer.post("/graphql", json=[{"query": queries[0]}] * 50)
    assert batch.status_code in (400, 413)
    record_property("attacks", len(queries) + 1)


def test_control_just_below_the_bound_is_taken(writer: httpx.Client) -> None:
    """A body with as many lists as may be is read."""
    unread = "[]," * (MOST_CONTAINERS - 10)
    answer = writer.post(CREATE, content=f'{{"name":"large {os.getpid()}","x":[{unread}[]]}}', headers=JSON)
    assert answer.status_code == 200, answer.text
