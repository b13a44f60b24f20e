"""The least a durable tracking server could do.

Points go from HTTP into one table without an index, many requests a commit, each answered after its
commit is flushed. Nothing is checked, nobody is asked who they are, no run is known and nothing can
be read back: it is a ceiling, not a server. The other calls of the stock client get a fixed answer.

    python program.py --port 5900 --database tracking.db
    python program.py --port 5900 --database postgresql://…
"""

import argparse
import asyncio
import queue
import sqlite3
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

API = "/api/2.0/mlflow"
GROUP_ROWS = 20_000
COLUMNS = "run_id TEXT, key TEXT, step BIGINT, timestamp_ms BIGINT, value DOUBLE PRECISION"

Row = tuple[str, str, int, int, float]


class Point(msgspec.Struct):
    """A metric point of a batch."""

    key: str
    value: float
    timestamp: int
    step: int = 0


class LogMetric(Point):
    """runs/log-metric."""

    run_id: str = ""


class LogBatch(msgspec.Struct):
    """runs/log-batch."""

    run_id: str
    metrics: list[Point] = []


class Table(Protocol):
    """Where points go."""

    def append(self, rows: list[Row]) -> None:
        """Store the rows; they are flushed to disk when this returns."""
        ...


class SqliteTable:
    """A SQLite file with a write-ahead log that is flushed at each commit."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS points ({COLUMNS})")

    def append(self, rows: list[Row]) -> None:
        """One transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")


class PostgresTable:
    """A Postgres table, filled by COPY."""

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url)
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS points ({COLUMNS})")
        self._connection.commit()

    def append(self, rows: list[Row]) -> None:
        """One transaction."""
        with self._connection.cursor().copy("COPY points FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        self._connection.commit()


class GroupCommit:
    """One thread that commits all that waits, then answers all of it at once."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._waiting: queue.SimpleQueue[tuple[list[Row], asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, rows: list[Row]) -> "asyncio.Future[None]":
        """Done when the rows are flushed."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._run, daemon=True).start()
        future = self._loop.create_future()
        self._waiting.put((rows, future))
        return future

    def _run(self) -> None:
        while True:
            first, future = self._waiting.get()
            rows, futures = list(first), [future]
            while len(rows) < GROUP_ROWS and not self._waiting.empty():
                more, future = self._waiting.get()
                rows.extend(more)
                futures.append(future)
            self._table.append(rows)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(_release, futures)


def _release(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def make_app(table: Table) -> Starlette:
    """The application."""
    commits = GroupCommit(table)
    decode_metric = msgspec.json.Decoder(LogMetric).decode
    decode_batch = msgspec.json.Decoder(LogBatch).decode

    async def log_metric(request: Request) -> Response:
        point = decode_metric(await request.body())
        await commits.put([(point.run_id, point.key, point.step, point.timestamp, point.value)])
        return _answer(b"{}")

    async def log_batch(request: Request) -> Response:
        batch = decode_batch(await request.body())
        await commits.put([(batch.run_id, p.key, p.step, p.timestamp, p.value) for p in batch.metrics])
        return _answer(b"{}")

    return Starlette(
        routes=[
            Route("/health", _fixed(b"OK")),
            Route(f"{API}/runs/log-metric", log_metric, methods=["POST"]),
            Route(f"{API}/runs/log-batch", log_batch, methods=["POST"]),
            Route(f"{API}/runs/create", _new_run, methods=["POST"]),
            Route(f"{API}/runs/update", _ended_run, methods=["POST"]),
            Route(f"{API}/runs/get", _known_run),
            Route(f"{API}/experiments/create", _fixed(b'{"experiment_id": "1"}'), methods=["POST"]),
            Route(f"{API}/experiments/get-by-name", _known_experiment),
        ]
    )


def _answer(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _fixed(body: bytes) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        await request.body()
        return _answer(body)

    return answer


async def _new_run(request: Request) -> Response:
    await request.body()
    return _answer(_run(uuid.uuid4().hex))


async def _ended_run(request: Request) -> Response:
    run_id = msgspec.json.decode(await request.body())["run_id"]
    return _answer(msgspec.json.encode({"run_info": _info(run_id)}))


async def _known_run(request: Request) -> Response:
    return _answer(_run(request.query_params["run_id"]))


async def _known_experiment(request: Request) -> Response:
    name = request.query_params["experiment_name"]
    experiment = {
        "experiment_id": "1",
        "name": name,
        "artifact_location": "mlflow-artifacts:/1",
        "lifecycle_stage": "active",
    }
    return _answer(msgspec.json.encode({"experiment": experiment}))


def _run(run_id: str) -> bytes:
    return msgspec.json.encode({"run": {"info": _info(run_id), "data": {}}})


def _info(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "run_uuid": run_id,
        "run_name": "run",
        "experiment_id": "1",
        "user_id": "someone",
        "status": "RUNNING",
        "start_time": 1,
        "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts",
        "lifecycle_stage": "active",
    }


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", required=True, help="a file for SQLite, or postgresql://…")
    options = parser.parse_args()
    is_postgres = options.database.startswith("postgresql")
    table = PostgresTable(options.database) if is_postgres else SqliteTable(options.database)
    uvicorn.run(
        make_app(table),
        host="127.0.0.1",
        port=options.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
