"""One run with everything around it, and what an operator does with what is parked of it."""

from dataclasses import dataclass
from typing import Any, Self

from server.database.engine import Transaction
from server.domain.operations import LogPoint, Operation
from server.journal import batches, leases
from server.journal.contents import EntryRow, read_range
from server.journal.points import PointRow
from server.spool.spool import INLINE_LIMIT
from tests.support.tracking import Json, Tracking, journal_of

PARKED = "/api/2.0/mlproxy/parked"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
SMALL, LARGE = b"small", b"x" * (INLINE_LIMIT + 1)
_EVERYTHING = 2**62


@dataclass(slots=True)
class Scene:
    """The names of one run and its surroundings on a server."""

    server: Tracking
    experiment_id: str
    run_id: str
    model: str

    @classmethod
    async def open(cls, server: Tracking) -> Self:
        experiment_id = await server.experiment()
        run_id = await server.run(experiment_id=experiment_id)
        await server.post("registered-models/create", name=f"model of {run_id}")
        return cls(server, experiment_id, run_id, f"model of {run_id}")

    # --- what clients do ---

    async def post(self, path: str, **fields: Any) -> Json:
        return await self.server.post(path, **fields)

    async def tag(self, value: str, key: str = "k") -> None:
        await self.post("runs/set-tag", run_id=self.run_id, key=key, value=value)

    async def upload(self, content: bytes, path: str = "f") -> None:
        answer = await self.server.http.put(self.file(path), content=content)
        assert answer.status_code == 200, answer.text

    async def delete_file(self, path: str = "f") -> None:
        assert (await self.server.http.delete(self.file(path))).status_code == 200

    def file(self, path: str = "f") -> str:
        return f"{ARTIFACTS}/{self.experiment_id}/{self.run_id}/artifacts/{path}"

    async def version(self, **fields: Any) -> str:
        source = f"runs:/{self.run_id}/m"
        answer = await self.post(
            "model-versions/create", name=self.model, source=source, run_id=self.run_id, **fields
        )
        return str(answer["model_version"]["version"])

    # --- what delivery does ---

    async def park_everything(self, reason: str = "refused") -> None:
        """Everything that is on its way is refused."""
        async with journal_of(self.server) as transaction:
            _finish_lanes(transaction, reason)

    async def settle_everything(self) -> None:
        """Everything that is on its way arrives."""
        async with journal_of(self.server) as transaction:
            _finish_lanes(transaction, None)

    async def lanes(self) -> dict[str, int]:
        """The ids of the lanes of the run, its experiment and its model."""
        async with journal_of(self.server) as transaction:
            data, artifacts = transaction.rows(
                "SELECT data_lane_id, artifact_lane_id FROM runs WHERE run_id = ?", (self.run_id,)
            )[0]
            model = transaction.rows("SELECT lane_id FROM registered_models WHERE name = ?", (self.model,))
            experiment = transaction.rows(
                "SELECT lane_id FROM experiments WHERE experiment_id = ?", (int(self.experiment_id),)
            )
        return {
            "data": data,
            "artifacts": artifacts,
            "model": model[0][0] if model else 0,
            "experiment": experiment[0][0],
        }

    async def pending(self) -> dict[int, Operation]:
        """What is on its way, by lane and then in order; a point as its operation."""
        async with journal_of(self.server) as transaction:
            return {
                row.position + lane_id * 10_000: _operation(row)
                for lane_id in _pending_lanes(transaction)
                for row in _rows(transaction, lane_id)
            }

    async def operations(self) -> list[Operation]:
        """The same, in order."""
        return [operation for _, operation in sorted((await self.pending()).items())]

    async def barriers(self) -> set[tuple[int, int, int, int]]:
        """(lane, position, awaited lane, awaited position) of what is on its way."""
        async with journal_of(self.server) as transaction:
            return set(
                transaction.rows("SELECT lane_id, position, awaited_lane_id, awaited_position FROM barriers")
            )

    # --- what an operator does ---

    async def parked(self, **query: Any) -> list[Json]:
        return list((await self.server.get(PARKED, **query))["parked"])

    async def parked_id(self, kind: str) -> int:
        """The last parked entry of a kind."""
        return int(
            [item for item in await self.parked(max_results=1000) if item["kind"] == kind][-1]["parked_id"]
        )

    async def show(self, parked_id: int) -> Json:
        return await self.server.get(f"{PARKED}/{parked_id}")

    async def retry(self, *parked_ids: int, **fields: Any) -> Json:
        return await self.server.post(f"{PARKED}/retry", **({"ids": parked_ids} if parked_ids else fields))

    async def drop(self, *parked_ids: int, **fields: Any) -> Json:
        body = {"reason": "not wanted", **({"ids": parked_ids} if parked_ids else {}), **fields}
        return await self.server.post(f"{PARKED}/drop", **body)

    async def drop_everything(self) -> None:
        if await self.parked():
            await self.drop(all=True)


def _pending_lanes(transaction: Transaction) -> list[int]:
    return [
        row[0]
        for row in transaction.rows(
            "SELECT lane_id FROM lanes WHERE settled_position < last_position ORDER BY lane_id"
        )
    ]


def _rows(transaction: Transaction, lane_id: int) -> list[EntryRow | PointRow]:
    contents = read_range(transaction, lane_id, 0, _EVERYTHING, limit=10_000)
    return sorted([*contents.entries, *contents.points], key=lambda row: row.position)


def _operation(row: EntryRow | PointRow) -> Operation:
    if isinstance(row, PointRow):
        return LogPoint(row.key, None if row.is_nan else row.value, row.timestamp_ms, row.step)
    assert row.operation is not None
    return row.operation


def _finish_lanes(transaction: Transaction, reason: str | None) -> None:
    for lane_id in _pending_lanes(transaction):
        lease = leases.claim(transaction, lane_id, owner="test", lease_ms=0)
        assert lease is not None
        first, last = lease.lane.settled_position + 1, lease.lane.last_position
        batch = batches.fix_batch(transaction, lease, first, last, lease_ms=0)
        if reason is None:
            batches.settle(transaction, lease, batch)
            continue
        contents = read_range(transaction, lane_id, first, last, limit=10_000)
        batches.park(transaction, lease, batch, contents, reason=reason, message="NO: refused")
