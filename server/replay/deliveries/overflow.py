"""A run's overflow lane: what the workspace's limits cannot hold, as files under the run.

A file is closed, built from the rows it holds (the same bytes every time), uploaded, and only then let go. So
everything here is harmless to repeat. A file that is there already with other content was delivered in an
earlier life of this journal (a backup was restored): its lines are kept, ours are added.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar, cast

import structlog

from server.commit.writer import Work
from server.database.engine import Database, Transaction
from server.domain import failpoints
from server.domain.operations import DeliverOverflow
from server.domain.overflow_files import OVERFLOW_TAG, path_of_file
from server.domain.verdicts import Verdict
from server.domain.workspace_limits import LimitRefusal
from server.journal import overflow
from server.journal.batches import Batch
from server.journal.contents import Contents
from server.journal.leases import Lane
from server.replay.deliveries.delivery import Division
from server.replay.deliveries.runs import upstream_run_id
from server.replay.overflow_lines import read_lines
from server.replay.turns import LaneWriter
from server.store import upstream_ids
from server.store.upstream_ids import RunIds
from server.upstream.artifacts import UpstreamArtifacts
from server.upstream.failures import UpstreamFailure
from server.upstream.runs import UpstreamRuns

T = TypeVar("T")
log = structlog.get_logger(__name__)

_ROWS_PER_READ = 2_000
_ROWS_PER_REMOVAL = 1_000


class OverflowDelivery:
    """Delivers a run's overflow lane."""

    def __init__(
        self,
        *,
        database: Database,
        writer: LaneWriter,
        runs: UpstreamRuns,
        artifacts: UpstreamArtifacts,
    ) -> None:
        self._database = database
        self._writer = writer
        self._runs = runs
        self._artifacts = artifacts

    async def divide(self, lane: Lane, contents: Contents, refusal: LimitRefusal | None = None) -> Division:
        """Everything is sent."""
        return Division(contents)

    async def send(self, lane: Lane, batch: Batch, contents: Contents) -> None:
        """Close the file, bring it to the run, and say so in a tag."""
        match contents.entries[0].operation:
            case DeliverOverflow(file_number):
                await self._deliver(lane.subject_id, file_number)
            case other:
                raise TypeError(f"{type(other).__name__} cannot be part of an overflow lane")

    async def _deliver(self, run_pk: int, file_number: int) -> None:
        await self._commit(lambda transaction: overflow.close_file(transaction, run_pk, file_number))
        failpoints.reach("overflow.closed")
        ids = await self._ids(run_pk)
        upstream_id = upstream_run_id(ids)
        lines = await self._lines(run_pk, file_number)
        await self._upload(ids, upstream_id, path_of_file(file_number), lines)
        failpoints.reach("overflow.uploaded")
        await self._tag(run_pk, upstream_id, file_number)
        await self._commit(lambda transaction: overflow.mark_delivered(transaction, run_pk, file_number))
        failpoints.reach("overflow.delivered")
        await self._let_go(run_pk, file_number)

    async def _lines(self, run_pk: int, file_number: int) -> list[bytes]:
        lines: list[bytes] = []
        after = 0
        while True:
            read = partial(
                read_lines, run_pk=run_pk, file_number=file_number, after=after, limit=_ROWS_PER_READ
            )
            rows = await self._database.read(read)
            lines += [line for _, line in rows]
            if len(rows) < _ROWS_PER_READ:
                return lines
            after = rows[-1][0]

    async def _upload(self, ids: RunIds, upstream_id: str, path: str, lines: list[bytes]) -> None:
        experiment = ids.experiment.upstream_id or ids.experiment.upstream_name
        content = b"".join(lines)
        there = await self._artifacts.info(experiment, upstream_id, path)
        if there is not None and there.md5 != _md5(content):
            content = await self._merged(experiment, upstream_id, path, lines)
        await self._artifacts.upload(experiment, upstream_id, path, content, len(content), _md5(content))

    async def _merged(self, experiment: str, upstream_id: str, path: str, lines: list[bytes]) -> bytes:
        """What is there, and those of our lines that are not in it."""
        chunks = [chunk async for chunk in self._artifacts.open_read(experiment, upstream_id, path)]
        there = b"".join(chunks)
        known = set(there.splitlines(keepends=True))
        log.warning("overflow_file_merged", run_id=upstream_id, path=path, lines_there=len(known))
        return there + b"".join(line for line in lines if line not in known)

    async def _tag(self, run_pk: int, upstream_id: str, file_number: int) -> None:
        """Say on the run how much its files hold. A run that takes no more tags goes without."""
        entries = await self._database.read(
            lambda transaction: overflow.count_delivered(transaction, run_pk, with_file=file_number)
        )
        try:
            await self._runs.log_batch(upstream_id, tags={OVERFLOW_TAG: str(entries)})
        except UpstreamFailure as failure:
            if failure.verdict is not Verdict.PARK:
                raise
            log.warning("overflow_not_tagged", run_id=upstream_id, entries=entries, message=failure.message)

    async def _let_go(self, run_pk: int, file_number: int) -> None:
        """The file is in the workspace, verified: its rows are not needed any more."""
        removed = _ROWS_PER_REMOVAL
        while removed == _ROWS_PER_REMOVAL:
            removed = await self._commit(
                lambda transaction: overflow.remove_delivered(
                    transaction, run_pk, file_number, limit=_ROWS_PER_REMOVAL
                )
            )

    async def find_missing(self, lane: Lane, batch: Batch, contents: Contents) -> Contents:
        """A file that was marked as delivered is there; any other is delivered again, to the same end."""
        operation = cast(DeliverOverflow, contents.entries[0].operation)
        is_there = await self._database.read(
            lambda transaction: overflow.is_delivered(transaction, lane.subject_id, operation.file_number)
        )
        if not is_there:
            return contents
        await self._let_go(lane.subject_id, operation.file_number)
        return Contents()

    async def settle_time(self, lane: Lane, contents: Contents) -> timedelta:
        """None."""
        return timedelta(0)

    async def _commit(self, apply: Callable[[Transaction], T]) -> T:
        return await self._writer.commit(Work(apply), background=True)

    async def _ids(self, run_pk: int) -> RunIds:
        ids = await self._database.read(lambda transaction: upstream_ids.find_run(transaction, run_pk))
        if ids is None:
            raise UpstreamFailure(Verdict.PARK, "UNKNOWN_RUN", "The run is not in the store.")
        return ids


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
