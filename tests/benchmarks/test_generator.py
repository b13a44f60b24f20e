"""The load generator counts what a server really answered, and sends what it says it sends."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.load.generator import carry_out
from benchmarks.load.plan import LoadResult, Plan
from tests.support.attempts import quickest

RUN = {"run": {"info": {"run_id": "0" * 32}}}
Answer = Callable[[str, bytes], bytes]


def whole(document: Any, status: str = "200 OK") -> bytes:
    """An answer of known length."""
    body = json.dumps(document).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def in_chunks(document: Any) -> bytes:
    """The same answer, in chunks."""
    body = json.dumps(document).encode()
    half = len(body) // 2
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts


class Server:
    """Answers each request with what `answer` makes of its target and body; empty hangs up."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[tuple[str, bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                lengths = [line for line in head.splitlines() if line.startswith("Content-Length: ")]
                length = int(lengths[0].partition(": ")[2]) if lengths else 0
                body = await reader.readexactly(length)
                self.requests.append((f"{method} {target}", body))
                answer = self._answer(target, body)
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[Server]:
    """A server on a free port."""
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


def load(answer: Answer, workload: dict[str, Any], **options: Any) -> tuple[LoadResult, Server]:
    """Carry out a load on such a server."""

    async def run() -> tuple[LoadResult, Server]:
        async with listening(answer) as server:
            plan = Plan(server.url, workload, timeout_seconds=60.0, **options)
            return await carry_out(plan), server

    return asyncio.run(run())


def test_every_operation_is_sent_and_counted_once() -> None:
    """A load of 100 operations on three connections is 100 requests, each answered and counted."""
    result, server = load(
        lambda target, body: whole({}),
        {"kind": "log-metric", "run_ids": ["a", "b"]},
        connections=3,
        operations=100,
    )

    assert (result.operations, result.requests, result.errors) == (100, 100, 0)
    steps = sorted(json.loads(body)["step"] for _, body in server.requests)
    assert steps == list(range(100))
    assert {json.loads(body)["run_id"] for _, body in server.requests} == {"a", "b"}


def test_a_refusal_is_an_error_and_no_operation() -> None:
    """What a server answers with 400 or above is counted apart, with its words."""
    answered = iter(range(1000))

    def answer(target: str, body: bytes) -> bytes:
        return whole({"why": "no"}, "500 Oh") if next(answered) % 4 == 0 else whole({})

    result, _ = load(answer, {"kind": "log-metric", "run_ids": ["a"]}, connections=1, operations=20)

    assert (result.operations, result.errors) == (15, 5)
    assert result.first_error is not None
    assert result.first_error.startswith("500")
    assert "no" in result.first_error


def test_a_connection_that_breaks_is_an_error_and_the_load_goes_on() -> None:
    """A server that hangs up once costs one operation, not the rest of the load."""
    answered = iter(range(1000))

    def answer(target: str, body: bytes) -> bytes:
        return b"" if next(answered) == 3 else whole({})

    result, _ = load(answer, {"kind": "log-metric", "run_ids": ["a"]}, connections=1, operations=10)

    assert (result.operations, result.errors) == (9, 1)


def test_an_operation_of_two_requests_is_one_operation() -> None:
    """Creating and finishing a run counts once, and the second request names the run that was made."""
    result, server = load(
        lambda target, body: whole(RUN),
        {"kind": "create-and-update-run", "experiment_id": "7"},
        connections=2,
        operations=10,
    )

    assert (result.operations, result.requests) == (10, 20)
    updates = [json.loads(body) for target, body in server.requests if target.endswith("runs/update")]
    assert [update["run_id"] for update in updates] == ["0" * 32] * 10


@pytest.mark.parametrize("encode", [whole, in_chunks], ids=["whole", "in chunks"])
def test_a_history_is_read_to_its_last_page(encode: Callable[[Any], bytes]) -> None:
    """One history of three pages is one operation of three requests, however the answers are framed."""

    def answer(target: str, body: bytes) -> bytes:
        if "page_token=second" in target:
            return encode({"metrics": [], "next_page_token": "third"})
        if "page_token=third" in target:
            return encode({"metrics": []})
        return encode({"metrics": [], "next_page_token": "second"})

    result, _ = load(
        answer, {"kind": "metric-history", "run_id": "a", "key": "loss"}, connections=1, operations=2
    )

    assert (result.operations, result.requests, result.errors) == (2, 6, 0)


def test_a_paced_load_keeps_its_pace() -> None:
    """Operations at 50 a second are about 50 after a second, however fast the server answers."""

    def operations() -> int:
        result, _ = load(
            lambda target, body: whole({}),
            {"kind": "log-metric", "run_ids": ["a"]},
            connections=4,
            seconds=1.0,
            warm_up_seconds=0.2,
            per_second=50.0,
        )
        return result.operations

    assert quickest(lambda: abs(operations() - 48), under=9) <= 8


def test_a_slow_answer_is_waited_for() -> None:
    """A load that is too short for one operation still ends with the least number of them."""

    async def run() -> LoadResult:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(0.2)
                writer.write(whole({}))

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with listener:
            return await carry_out(
                Plan(
                    url,
                    {"kind": "get", "path": "/"},
                    connections=1,
                    seconds=0.05,
                    warm_up_seconds=0.0,
                    least_operations=2,
                )
            )

    def middle() -> float:
        result = asyncio.run(run())
        assert result.operations == 2
        return result.p50_ms

    assert 190 <= quickest(middle, under=1000) < 1000


def test_the_same_batch_goes_to_every_server() -> None:
    """Two loads of the same kind send the same values: what is random is drawn with a fixed seed."""
    workload = {"kind": "log-batch", "run_ids": ["a"], "metrics": 5, "params": 2, "tags": 1, "first": 3}
    bodies = []
    for _ in range(2):
        _, server = load(lambda target, body: whole({}), workload, connections=1, operations=2)
        bodies.append([json.loads(body) for _, body in server.requests])

    def values(documents: list[Any]) -> list[Any]:
        return [[(m["key"], m["value"], m["step"]) for m in each["metrics"]] for each in documents]

    assert values(bodies[0]) == values(bodies[1])
    assert [len(each["params"]) for each in bodies[0]] == [2, 2]
    assert bodies[0][0]["metrics"][0]["step"] == 15
