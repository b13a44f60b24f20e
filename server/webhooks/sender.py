"""Sending what the outbox holds.

A row was committed with the write it tells of. It is claimed for a while, sent, and taken out once
the receiver has it or it is given up. A process that dies in between leaves a claim that runs out:
a receiver may see a delivery twice, always under the same id, and never loses one.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.postgres import DatabaseAwayError
from server.domain.backoff import Backoff
from server.domain.clock import Clock
from server.protocol.webhooks import delivery_headers
from server.store import webhooks
from server.store.webhooks import Delivery
from server.webhooks.guard import RefusedTargetError, UnresolvedTargetError
from server.webhooks.outbound import REQUEST_SECONDS, FailedRequestError, Outbound

log = structlog.get_logger(__name__)

_POLL_SECONDS = 1.0
_STOP_SECONDS = 5.0
_CLAIM = timedelta(seconds=REQUEST_SECONDS * 2)
_CANDIDATES = 100
_WORTH_REPEATING = frozenset({408, 425, 429})
_LONGEST_WAIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """How hard the sender tries: by default a dozen times, over some forty minutes."""

    attempts: int = 12
    backoff: Backoff = field(default_factory=lambda: Backoff(timedelta(seconds=1), _LONGEST_WAIT))
    concurrent: int = 8
    concurrent_per_webhook: int = 2


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an attempt came to. `wait` is None when there is nothing left to try."""

    reason: str | None
    wait: timedelta | None = None


class Sender:
    """Sends deliveries until it is stopped."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        clock: Clock,
        outbound: Outbound,
        settings: SenderSettings | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._outbound = outbound
        self._settings = settings or SenderSettings()
        self._jitter = jitter
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._sending: dict[asyncio.Task[None], Delivery] = {}
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin sending."""
        self._loop = asyncio.create_task(self._run(), name="webhooks")

    async def stop(self) -> None:
        """Let what is on its way end within a deadline; give back the rest."""
        self._stop.set()
        self._wake.set()
        if self._loop is not None:
            await self._loop
        if not self._sending:
            return
        _, late = await asyncio.wait(self._sending, timeout=_STOP_SECONDS)
        broken_off = [self._sending[task].delivery_pk for task in late if task in self._sending]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if broken_off:
            with suppress(Exception):
                await self._writer.commit(
                    Work(lambda transaction: webhooks.give_back(transaction, broken_off)), background=True
                )

    # --- the loop ---

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                await self._begin_some()
            except DatabaseAwayError:
                pass  # the writer and the replay say so
            except Exception as error:
                log.error("webhook_scan_failed", exc_info=error)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()

    async def _begin_some(self) -> None:
        """Claim as many deliveries as there is room for, and start them."""
        room = self._settings.concurrent - len(self._sending)
        if room <= 0 or self._stop.is_set():
            return
        now_ms = self._clock.now_ms()
        per_webhook = self._settings.concurrent_per_webhook
        due = await self._database.read(
            lambda transaction: webhooks.list_due(
                transaction, now_ms=now_ms, per_webhook=per_webhook, limit=_CANDIDATES
            )
        )
        busy = Counter(delivery.webhook.webhook_pk for delivery in self._sending.values())
        chosen: list[tuple[int, int]] = []
        for delivery_pk, webhook_pk, not_before_ms in due:
            if len(chosen) < room and busy[webhook_pk] < per_webhook:
                busy[webhook_pk] += 1
                chosen.append((delivery_pk, not_before_ms))
        if not chosen:
            return
        claimed = await self._writer.commit(
            Work(lambda transaction: _claim(transaction, chosen)), background=True
        )
        for delivery in claimed:
            task = asyncio.create_task(self._deliver(delivery), name=f"webhook-{delivery.delivery_id}")
            self._sending[task] = delivery
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhook_delivery_failed", exc_info=error)
        self._wake.set()

    # --- one delivery ---

    async def _deliver(self, delivery: Delivery) -> None:
        outcome = await self._attempt(delivery)
        if outcome.wait is None or delivery.attempts >= self._settings.attempts:
            if outcome.reason is not None:
                self._log("webhook_given_up", delivery, outcome)
            await self._commit(lambda transaction: webhooks.settle(transaction, delivery.delivery_pk))
            return
        self._log("webhook_postponed", delivery, outcome)
        not_before_ms = self._clock.now_ms() + int(outcome.wait.total_seconds() * 1000)
        await self._commit(
            lambda transaction: webhooks.postpone(transaction, delivery.delivery_pk, not_before_ms)
        )

    async def _attempt(self, delivery: Delivery) -> _Outcome:
        wait = self._settings.backoff.delay(delivery.attempts, self._jitter)
        headers = delivery_headers(
            delivery.body,
            delivery_id=delivery.delivery_id,
            secret=delivery.webhook.secret,
            now_ms=self._clock.now_ms(),
        )
        try:
            reply = await self._outbound.post(delivery.webhook.url, delivery.body.encode(), headers)
        except RefusedTargetError as error:
            return _Outcome(str(error))
        except (UnresolvedTargetError, FailedRequestError) as error:
            return _Outcome(str(error), wait)
        if reply.is_success:
            return _Outcome(None)
        reason = f"status {reply.status}"
        if reply.status < 500 and reply.status not in _WORTH_REPEATING:
            return _Outcome(reason)
        asked = timedelta(seconds=reply.retry_after_seconds or 0)
        return _Outcome(reason, max(wait, min(asked, _LONGEST_WAIT)))

    async def _commit(self, change: Callable[[Transaction], None]) -> None:
        await self._writer.commit(Work(change), background=True)

    def _log(self, event: str, delivery: Delivery, outcome: _Outcome) -> None:
        # The URL stays out of the log: it may be a secret by itself.
        log.warning(
            event,
            webhook_id=delivery.webhook.webhook_id,
            delivery_id=delivery.delivery_id,
            about=delivery.event,
            attempt=delivery.attempts,
            reason=outcome.reason,
        )


def _claim(transaction: Transaction, chosen: list[tuple[int, int]]) -> list[Delivery]:
    until_ms = transaction.now_ms + int(_CLAIM.total_seconds() * 1000)
    found = (
        webhooks.claim(transaction, delivery_pk, not_before_ms=not_before_ms, until_ms=until_ms)
        for delivery_pk, not_before_ms in chosen
    )
    return [delivery for delivery in found if delivery is not None]
