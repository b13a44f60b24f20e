"""How many bytes the backlog counts is exact, whatever is appended, settled, halved or parked."""

import random

import pytest

from server.database.engine import Transaction
from server.domain.operations import UploadArtifact
from server.journal import batches, leases
from server.journal.batch_states import BatchState
from server.journal.batches import Batch, find_open_batch, fix_batch
from server.journal.codec import decode_operation
from server.journal.contents import read_range
from server.journal.leases import Lease
from tests.support.tracking import Tracking, journal_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROW_BYTES = 64
LEASE_MS = 0
SEED = 20201112


def counted(transaction: Transaction) -> dict[int, int]:
    """What the lanes say, those that count anything."""
    return dict(transaction.rows("SELECT lane_id, undelivered_bytes FROM lanes WHERE undelivered_bytes <> 0"))


def held(transaction: Transaction) -> dict[int, int]:
    """What is held weighs: 64 bytes each, payloads, and small artifacts, which lie in the database.

    A block of points stays until all of it is settled; those that are do not count.
    """
    weights: dict[int, int] = {}
    for lane_id, kind, payload in transaction.rows("SELECT lane_id, kind, payload FROM journal_entries"):
        operation = decode_operation(kind, bytes(payload))
        inline = 0
        if isinstance(operation, UploadArtifact) and operation.spool_name is None:
            inline = operation.size_bytes
        weights[lane_id] = weights.get(lane_id, 0) + ROW_BYTES + len(payload) + inline
    blocks = transaction.rows(
        "SELECT lane_id, first_position, journal_blocks.last_position, settled_position"
        " FROM journal_blocks JOIN lanes USING (lane_id)"
    )
    for lane_id, first, last, settled in blocks:
        weights[lane_id] = weights.get(lane_id, 0) + ROW_BYTES * (last - max(first, settled + 1) + 1)
    return weights


def lane_lengths(transaction: Transaction) -> dict[int, tuple[int, int]]:
    """Lane → (settled, last) of those that hold something."""
    rows = transaction.rows(
        "SELECT lane_id, settled_position, last_position FROM lanes WHERE settled_position < last_position"
    )
    return {row[0]: (row[1], row[2]) for row in rows}


async def log_much(tracking: Tracking) -> None:
    """Some of everything that is journaled."""
    experiment_id = await tracking.experiment(tags=[{"key": "team", "value": "x" * 300}])
    run_id = await tracking.run(experiment_id=experiment_id)
    await tracking.post("runs/log-parameter", run_id=run_id, key="p", value="é" * 200)
    points = [{"key": f"m{number % 3}", "value": number, "timestamp": number} for number in range(40)]
    await tracking.post("runs/log-batch", run_id=run_id, metrics=[*points, *points])
    await tracking.post("runs/set-tag", run_id=run_id, key="t", value="1")
    await tracking.post("runs/delete-tag", run_id=run_id, key="t")
    for name, size in (("none", 0), ("small", 65_536), ("large", 65_537)):
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment_id}/{run_id}/artifacts/{name}"
        assert (await tracking.http.put(path, content=b"x" * size)).status_code == 200
    await tracking.post("registered-models/create", name=f"model {run_id}", description="d" * 500)
    await tracking.post("runs/update", run_id=run_id, status="FINISHED", end_time=9)


def take_lane(transaction: Transaction, lane_id: int) -> Lease:
    """Hold a lane, until anyone else asks for it."""
    lease = leases.claim(transaction, lane_id, owner="test", lease_ms=LEASE_MS)
    assert lease is not None
    return lease


async def test_what_is_accepted_counts(tracking: Tracking) -> None:
    """Every kind of entry weighs what its row and, for a small artifact, its bytes take."""
    await log_much(tracking)
    async with journal_of(tracking) as transaction:
        assert counted(transaction) == held(transaction)
        assert len(held(transaction)) >= 4


async def test_what_is_settled_counts_no_more(tracking: Tracking) -> None:
    """After any mixture of settling, halving and parking the count is that of the rows left; at the end 0."""
    await log_much(tracking)
    chance = random.Random(SEED)
    async with journal_of(tracking) as transaction:
        taken = {lane_id: take_lane(transaction, lane_id) for lane_id in lane_lengths(transaction)}
        while left := lane_lengths(transaction):
            lane_id = chance.choice(sorted(left))
            settled, last = left[lane_id]
            batch = find_open_batch(transaction, lane_id)
            if batch is None:
                end = chance.randint(settled + 1, last)
                batch = fix_batch(transaction, taken[lane_id], settled + 1, end, lease_ms=LEASE_MS)
            finish(transaction, taken[lane_id], batch, chance)
            assert counted(transaction) == held(transaction)
        assert (counted(transaction), held(transaction)) == ({}, {})


def finish(transaction: Transaction, lease: Lease, batch: Batch, chance: random.Random) -> None:
    """Settle, park or halve a batch."""
    match chance.choice(["settle", "park", "halve"]):
        case "halve" if batch.first_position < batch.last_position:
            batches.split_batch(transaction, lease, batch, state=BatchState.FIXED, failure="x")
        case "park":
            contents = read_range(
                transaction, batch.lane_id, batch.first_position, batch.last_position, limit=1000
            )
            batches.park(transaction, lease, batch, contents, reason="refused", message="x")
        case _:
            batches.settle(transaction, lease, batch)


async def test_a_lane_that_is_settled_counts_nothing_whatever_happened(tracking: Tracking) -> None:
    """A row that was spoilt meanwhile, so that its weight is unknown, leaves no trace in the count."""
    await log_much(tracking)
    async with journal_of(tracking) as transaction:
        transaction.run("UPDATE journal_entries SET payload = ? WHERE kind = 'UploadArtifact'", (b"\xc1x",))
        for lane_id, (settled, last) in lane_lengths(transaction).items():
            lease = take_lane(transaction, lane_id)
            batch = fix_batch(transaction, lease, settled + 1, last, lease_ms=LEASE_MS)
            batches.settle(transaction, lease, batch)
        assert counted(transaction) == {}


async def test_the_status_tells_the_bytes(tracking: Tracking) -> None:
    """`pending_bytes` is the sum over all lanes."""
    await log_much(tracking)
    async with journal_of(tracking) as transaction:
        total = sum(held(transaction).values())
    assert (await tracking.get("/api/2.0/mlproxy/status"))["pending_bytes"] == total
