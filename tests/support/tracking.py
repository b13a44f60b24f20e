"""The tracking API in-process: requests to the real door, and a look into the journal behind it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from server.api.app import make_app, make_door
from server.api.experiments import ExperimentRoutes
from server.api.metrics import MetricRoutes
from server.api.runs import RunRoutes
from server.bootstrap import build
from server.commit.writer import Bounds, Work, Writer
from server.database.engine import Database, Transaction
from server.database.migration import prepare_schema
from server.domain.clock import SystemClock
from server.journal.codec import decode_operation
from server.journal.points import read_points
from server.services.experiments import Experiments, add_default_experiment
from server.services.keys import OpenAuthenticator
from server.services.metrics import Metrics
from server.services.namings import Namings
from server.services.resends import Resends
from server.services.runs import Runs
from server.settings import Settings

MLFLOW = "/api/2.0/mlflow/"
DEADLINE_SECONDS = 120.0
FROM_NOWHERE = ("", 0)
"""The address of a client of whom nothing is known: no create of its is taken for another one sent again."""

Json = dict[str, Any]


@dataclass(slots=True)
class Api:
    """A client of one server, without a socket."""

    http: httpx.AsyncClient

    async def send(self, method: str, path: str, fields: Json | None = None) -> httpx.Response:
        """One request; a path without a leading slash is below `/api/2.0/mlflow/`."""
        url = path if path.startswith("/") else MLFLOW + path
        if method == "GET":
            return await self.http.request(method, url, params=fields)
        # In ASCII, so that a lone surrogate can be sent too.
        content, headers = json.dumps(fields or {}), {"content-type": "application/json"}
        return await self.http.request(method, url, content=content, headers=headers)

    async def get(self, path: str, **fields: Any) -> Json:
        """The answer to a GET that must succeed."""
        return _good(await self.send("GET", path, fields))

    async def post(self, path: str, **fields: Any) -> Json:
        """The answer to a POST that must succeed."""
        return _good(await self.send("POST", path, fields))

    async def refusal(self, method: str, path: str, fields: Json | None = None) -> tuple[int, str, str]:
        """Status, error code and message of a request that must be refused."""
        return refusal_of(await self.send(method, path, fields))

    async def experiment(self, **fields: Any) -> str:
        """A new experiment's id."""
        answer = await self.post("experiments/create", **{"name": f"exp {uuid4().hex}", **fields})
        return str(answer["experiment_id"])

    async def run(self, **fields: Any) -> str:
        """A new run's id; in an experiment of its own unless one is named."""
        if "experiment_id" not in fields:
            fields["experiment_id"] = await self.experiment()
        answer = await self.post("runs/create", **{"start_time": 1, **fields})
        return str(answer["run"]["info"]["run_id"])

    async def data(self, run_id: str) -> tuple[Json, Json, Json]:
        """Latest metrics (key → value), params and tags of a run."""
        data = (await self.get("runs/get", run_id=run_id))["run"]["data"]
        return (
            {item["key"]: item["value"] for item in data.get("metrics", [])},
            {item["key"]: item["value"] for item in data.get("params", [])},
            {item["key"]: item["value"] for item in data.get("tags", [])},
        )


@asynccontextmanager
async def client_at(door: Any, address: str, **headers: str) -> AsyncIterator[Api]:
    """A client of that address, which says nothing about its connection."""
    transport = httpx.ASGITransport(app=door, client=(address, 50_000))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers, timeout=60
    ) as http:
        yield Api(http)


def refusal_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, error code and message of an answer that must be MLflow's error body."""
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error_code", "message"}, body
    return answer.status_code, body["error_code"], body["message"]


def _good(answer: httpx.Response) -> Json:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return dict(answer.json())


@dataclass(frozen=True, slots=True)
class LaneView:
    """All that one lane of the journal holds."""

    last_position: int
    entries: dict[int, Any]
    points: dict[int, tuple[str, float | None, int, int]]
    barriers: set[tuple[int, int, int]]
    """(position, awaited lane, awaited position)"""

    @property
    def positions(self) -> list[int]:
        """Every position that holds something, in order."""
        return sorted([*self.entries, *self.points])


def read_lane(transaction: Transaction, lane_id: int) -> LaneView:
    """A lane as it is now."""
    entries = transaction.rows(
        "SELECT position, kind, payload FROM journal_entries WHERE lane_id = ? ORDER BY position", (lane_id,)
    )
    barriers = transaction.rows(
        "SELECT position, awaited_lane_id, awaited_position FROM barriers WHERE lane_id = ?", (lane_id,)
    )
    last = transaction.rows("SELECT last_position FROM lanes WHERE lane_id = ?", (lane_id,))[0][0]
    points = read_points(transaction, lane_id, 1, last)
    return LaneView(
        last,
        {row[0]: decode_operation(row[1], bytes(row[2])) for row in entries},
        {
            point.position: (point.key, None if point.is_nan else point.value, point.timestamp_ms, point.step)
            for point in points
        },
        {(row[0], row[1], row[2]) for row in barriers},
    )


@dataclass(slots=True)
class Journal:
    """The journal behind a server."""

    database: Database

    async def lanes_of_run(self, run_id: str) -> tuple[int, int]:
        """The ids of a run's data and artifact lanes."""
        rows = await self.database.read(
            lambda transaction: transaction.rows(
                "SELECT data_lane_id, artifact_lane_id FROM runs WHERE run_id = ?", (run_id,)
            )
        )
        return rows[0][0], rows[0][1]

    async def lane_of_experiment(self, experiment_id: str) -> int:
        """The id of an experiment's lane."""
        rows = await self.database.read(
            lambda transaction: transaction.rows(
                "SELECT lane_id FROM experiments WHERE experiment_id = ?", (int(experiment_id),)
            )
        )
        return int(rows[0][0])

    async def lane(self, lane_id: int) -> LaneView:
        """A lane as it is now."""
        return await self.database.read(lambda transaction: read_lane(transaction, lane_id))

    async def data_lane(self, run_id: str) -> LaneView:
        """A run's data lane."""
        return await self.lane((await self.lanes_of_run(run_id))[0])


@dataclass(slots=True)
class Tracking(Api):
    """A whole server and its journal."""

    door: Any = field(kw_only=True)
    journal: Journal = field(kw_only=True)
    routes: list[Any] = field(kw_only=True)
    database_url: str = field(kw_only=True)


@asynccontextmanager
async def journal_of(tracking: Tracking) -> AsyncIterator[Transaction]:
    """A transaction on the server's database, as its writer has them. Only while nothing else writes."""
    database = tracking.journal.database
    with database.writing(SystemClock().now_ms()) as transaction:
        yield transaction


@asynccontextmanager
async def tracking_server(database_url: str, data_dir: Path, **settings: Any) -> AsyncIterator[Tracking]:
    """A server as `serve` builds it, reached through its door."""
    server = await build(Settings(data_dir=data_dir, database_url=database_url, **settings))
    transport = httpx.ASGITransport(app=server.door, client=FROM_NOWHERE)  # type: ignore[arg-type]
    try:
        await server.start()
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            yield Tracking(
                http,
                door=server.door,
                journal=Journal(server.database),
                routes=server.routes,
                database_url=database_url,
            )
    finally:
        await server.stop()


@dataclass(slots=True)
class Bench(Api):
    """Tracking routes over a writer that a test can hold."""

    door: Any = field(kw_only=True)
    database: Database = field(kw_only=True)
    writer: Writer = field(kw_only=True)
    groups: list[int] = field(kw_only=True)
    """The sizes of the groups committed so far."""

    @property
    def journal(self) -> Journal:
        """The journal behind it."""
        return Journal(self.database)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the writer busy inside; what is asked meanwhile becomes one group."""
        busy, free = threading.Event(), threading.Event()

        def occupy(_: Transaction) -> None:
            busy.set()
            assert free.wait(DEADLINE_SECONDS)

        occupation = asyncio.ensure_future(self.writer.commit(Work(occupy, alone=True)))
        try:
            assert await asyncio.to_thread(busy.wait, DEADLINE_SECONDS)
            yield
        finally:
            free.set()
            occupation.add_done_callback(lambda done: done.exception())

    async def until_waiting(self, jobs: int) -> None:
        """Return when that many jobs wait for the writer."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.writer.waiting_jobs < jobs:  # noqa: ASYNC110 - a writer need not tell
                await asyncio.sleep(0)


@asynccontextmanager
async def bench_server(database_url: str, *, bounds: Bounds | None = None) -> AsyncIterator[Bench]:
    """The tracking routes on a database, without the rest of a server."""
    database = Database(database_url)
    prepare_schema(database)
    groups: list[int] = []
    writer = Writer(
        database=database,
        clock=SystemClock(),
        bounds=bounds,
        observe_group=lambda jobs, _: groups.append(jobs),
    )
    writer.start()
    await writer.commit(Work(add_default_experiment))
    resends = resends_over(database, writer)
    app = make_app(
        [
            *RunRoutes(Runs(database=database, writer=writer, resends=resends)).routes(),
            *ExperimentRoutes(Experiments(database=database, writer=writer, resends=resends)).routes(),
            *MetricRoutes(Metrics(database=database)).routes(),
        ]
    )
    door = make_door(app, authenticator=OpenAuthenticator(), allowed_hosts=frozenset({"localhost"}))
    transport = httpx.ASGITransport(app=door, client=FROM_NOWHERE)  # type: ignore[arg-type]
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            yield Bench(http, door=door, database=database, writer=writer, groups=groups)
    finally:
        await writer.stop()
        database.close()


def resends_over(database: Database, writer: Writer) -> Resends:
    """What recognises creates that are sent again, hearing what this database's requests name."""
    namings = Namings(database=database, writer=writer)
    database.on_names(namings)
    return Resends(writer=writer, namings=namings)
