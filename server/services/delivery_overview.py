"""Runs with how far each is, a page at a time."""

from collections.abc import Callable

from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.errors import invalid_parameter
from server.domain.name_patterns import NamePatterns
from server.journal.backlog import measure_backlog
from server.protocol import overview as messages
from server.protocol.paging import decode_offset, encode_offset
from server.services.blocking import blocked_by
from server.store.run_deliveries import RunDelivery, list_run_deliveries

_STATES = ("undelivered", "all")
_MOST_RUNS = 200


class DeliveryOverview:
    """The operator's list of runs. `studio_url` gives a run's address in the workspace's own pages."""

    def __init__(
        self, *, database: Database, clock: Clock, studio_url: Callable[[str], str] | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._studio_url = studio_url

    async def list_runs(
        self, request: messages.ListDeliveriesRequest, visible: NamePatterns | None = None
    ) -> messages.DeliveriesAnswer:
        """A page of runs, the latest first, of those experiments that are `visible` where that is given.

        Raises:
            MlflowError: an unknown state, or a page of an impossible size.
        """
        if request.state not in _STATES:
            raise invalid_parameter(f"Invalid state '{request.state}'. States: {', '.join(_STATES)}.")
        if not 1 <= request.max_results <= _MOST_RUNS:
            raise invalid_parameter(f"max_results must be between 1 and {_MOST_RUNS}.")
        offset = decode_offset(request.page_token)

        def look(transaction: Transaction) -> messages.DeliveriesAnswer:
            found = list_run_deliveries(
                transaction,
                undelivered=request.state == "undelivered",
                pattern=request.filter.strip(),
                offset=offset,
                limit=request.max_results + 1,
                visible=visible,
            )
            page = [self._message(transaction, run) for run in found[: request.max_results]]
            is_last = len(found) <= request.max_results
            token = None if is_last else encode_offset(offset + request.max_results)
            return messages.DeliveriesAnswer(page, token)

        return await self._database.read(look)

    def _message(self, transaction: Transaction, run: RunDelivery) -> messages.RunDeliveryMessage:
        backlog = measure_backlog(transaction, run.lane_ids)
        oldest = None if backlog.oldest_ms is None else (self._clock.now_ms() - backlog.oldest_ms) / 1000
        studio = None
        if run.upstream_id is not None and self._studio_url is not None:
            studio = self._studio_url(run.upstream_id)
        return messages.RunDeliveryMessage(
            run_id=run.run_id,
            run_name=run.name,
            experiment_id=str(run.experiment_id),
            experiment_name=run.experiment_name,
            status=run.status,
            pending=backlog.pending,
            uncertain=backlog.uncertain,
            parked=backlog.parked,
            overflow=backlog.overflow,
            oldest_pending_seconds=oldest,
            blocked_by=blocked_by(transaction, run.lane_ids),
            last_failure=_last_failure(transaction, run.lane_ids),
            studio_url=studio,
        )


def _last_failure(transaction: Transaction, lane_ids: list[int]) -> str | None:
    rows = transaction.rows_in(
        "SELECT last_failure FROM lanes WHERE last_failure IS NOT NULL AND lane_id", lane_ids
    )
    return rows[0][0] if rows else None
