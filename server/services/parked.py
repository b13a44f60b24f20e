"""Parked entries: what an operator sees of them, and the decision to send them again or never to.

Every decision is stored with who made it, and logged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from server.commit.bounds import Admission
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import does_not_exist, invalid_parameter
from server.domain.operations import UploadArtifact
from server.journal import parked
from server.journal.codec import CorruptEntryError, decode_operation, describe_payload
from server.journal.parked import Decision, ParkedEntry, ParkedKey, Selection
from server.protocol import limits, paging
from server.protocol import parked as messages
from server.services.blocking import describe_subject
from server.services.identity import get_run
from server.services.retrying.retries import (
    NotRetried,
    Retried,
    find_followers,
    order_of_retry,
    retry_entries,
)
from server.spool.spool import Spool
from server.store import artifacts

log = structlog.get_logger(__name__)

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000
_DECIDED_AT_ONCE = 100
_LONGEST_REASON = 2000
_IDENTIFYING = ("key", "path", "upstream_path", "version", "name", "status", "experiment_id", "file_number")


@dataclass(slots=True)
class _Dropped:
    """What a slice of dropped entries lets go of."""

    parked_ids: list[int] = field(default_factory=list)
    spooled: list[UploadArtifact] = field(default_factory=list)


class Parked:
    """What can be done with parked entries."""

    def __init__(self, *, database: Database, writer: Writer, spool: Spool) -> None:
        self._database = database
        self._writer = writer
        self._spool = spool

    # --- looking ---

    async def list_entries(self, request: messages.ListParkedRequest) -> messages.ParkedAnswer:
        """A page of what waits for a decision."""
        limit = limits.check_page_size(request.max_results, default=_DEFAULT_PAGE, largest=_LARGEST_PAGE)
        after = paging.decode_offset(request.page_token)

        def look(transaction: Transaction) -> messages.ParkedAnswer:
            selection = Selection(run_pk=_run_pk(transaction, request.run_id), reason=request.reason)
            found = parked.list_undecided(transaction, selection, after=after, limit=limit + 1)
            page = found[:limit]
            return messages.ParkedAnswer(
                [_message(transaction, entry) for entry in page],
                parked.count_undecided(transaction, selection),
                paging.encode_offset(page[-1].parked_id) if len(found) > limit else None,
            )

        return await self._database.read(look)

    async def get(self, parked_id: int) -> messages.ParkedDetailAnswer:
        """Everything that is known of one entry, decided or not.

        Raises:
            MlflowError: there is no such entry.
        """

        def look(transaction: Transaction) -> messages.ParkedDetailAnswer:
            entry = parked.find(transaction, parked_id)
            if entry is None:
                raise does_not_exist(f"There is no parked entry {parked_id}.")
            return _detail(transaction, entry)

        return await self._database.read(look)

    # --- deciding ---

    async def retry(self, request: messages.DecideRequest, operator: str) -> messages.RetryAnswer:
        """Put entries back at the end of their lanes, in their old order, but for what came later replaced.

        Raises:
            MlflowError: nothing, or something that is not parked, was named.
        """
        keys = await self._select(request)
        outcome = Retried()
        for part in _slices(sorted(keys, key=order_of_retry)):
            work = partial(retry_entries, keys=part, operator=operator, has_bytes=self._has_bytes)
            done = await self._writer.commit(
                Work(work, rows=len(part), alone=True, admission=Admission.ALWAYS)
            )
            outcome.add(done)
            _log_decision(Decision.RETRIED, done.retried, operator, None)
            _log_decision(Decision.SUPERSEDED, [item.parked_id for item in done.superseded], operator, None)
        followers, suggestion = await self._database.read(
            lambda transaction: find_followers(transaction, keys)
        )
        return messages.RetryAnswer(
            retried=len(outcome.retried),
            superseded=[_kept_message(item) for item in outcome.superseded],
            kept=[_kept_message(item) for item in outcome.kept],
            followers=followers,
            suggestion=suggestion,
        )

    def _has_bytes(self, spool_name: str) -> bool:
        return self._spool.path_of(spool_name).exists()

    async def drop(self, request: messages.DecideRequest, operator: str) -> messages.DropAnswer:
        """Never deliver entries. The store keeps what they hold; bytes in the spool are let go.

        Raises:
            MlflowError: no reason is given, or nothing, or something that is not parked, was named.
        """
        reason = (request.reason or "").strip()
        if not reason:
            raise invalid_parameter("Say why: a reason is kept with the decision.")
        limits.check_length("reason", _LONGEST_REASON, reason)
        keys = await self._select(request)
        dropped = freed = 0
        for part in _slices(keys):
            work = partial(_drop_some, keys=part, operator=operator, reason=reason)
            done = await self._writer.commit(Work(work, rows=len(part), alone=True))
            _log_decision(Decision.DROPPED, done.parked_ids, operator, reason)
            for upload in done.spooled:
                await self._spool.remove(upload.spool_name or "")
            dropped += len(done.parked_ids)
            freed += sum(upload.size_bytes for upload in done.spooled)
        return messages.DropAnswer(dropped, freed)

    async def _select(self, request: messages.DecideRequest) -> list[ParkedKey]:
        if sum((bool(request.ids), bool(request.run_id), request.all)) != 1:
            raise invalid_parameter("Name the entries: some ids, or a run, or all.")

        def look(transaction: Transaction) -> list[ParkedKey]:
            ids = tuple(dict.fromkeys(request.ids)) or None
            run_pk = _run_pk(transaction, request.run_id)
            keys = parked.list_keys(transaction, Selection(ids, run_pk))
            missing = sorted(set(ids or ()) - {key.parked_id for key in keys})
            if missing:
                raise does_not_exist(
                    f"Not parked, or decided on already: {', '.join(map(str, missing))}. Nothing was done."
                )
            return keys

        return await self._database.read(look)


def _slices(keys: Sequence[ParkedKey]) -> Iterator[Sequence[ParkedKey]]:
    """As much as one transaction decides, so that other writers do not wait for long."""
    return (keys[start : start + _DECIDED_AT_ONCE] for start in range(0, len(keys), _DECIDED_AT_ONCE))


def _log_decision(decision: Decision, parked_ids: Sequence[int], operator: str, reason: str | None) -> None:
    if parked_ids:
        log.info(
            "parked_decided",
            decision=decision.value,
            decided_by=operator,
            parked_ids=list(parked_ids),
            reason=reason,
        )


def _run_pk(transaction: Transaction, run_id: str | None) -> int | None:
    return get_run(transaction, run_id).run_pk if run_id else None


# --- dropping -------------------------------------------------------------------------------


def _drop_some(transaction: Transaction, keys: Sequence[ParkedKey], operator: str, reason: str) -> _Dropped:
    outcome = _Dropped()
    entries = parked.get_many(transaction, [key.parked_id for key in keys])
    for key in keys:
        entry = entries[key.parked_id]
        if not parked.decide(
            transaction, entry.parked_id, Decision.DROPPED, decided_by=operator, reason=reason
        ):
            continue
        outcome.parked_ids.append(entry.parked_id)
        upload = _spooled_upload(entry)
        if upload is not None and artifacts.release(
            transaction, upload.root_id, upload.path, upload.spool_name or ""
        ):
            outcome.spooled.append(upload)
    return outcome


def _spooled_upload(entry: ParkedEntry) -> UploadArtifact | None:
    try:
        operation = decode_operation(entry.kind, entry.payload)
    except CorruptEntryError:
        return None
    return operation if isinstance(operation, UploadArtifact) and operation.spool_name is not None else None


# --- telling --------------------------------------------------------------------------------


def _message(transaction: Transaction, entry: ParkedEntry) -> messages.ParkedMessage:
    return messages.ParkedMessage(
        parked_id=entry.parked_id,
        run_id=entry.run_id,
        subject=describe_subject(transaction, entry.lane_kind, entry.subject_id),
        kind=entry.kind,
        what=_in_few_words(entry),
        reason=entry.reason,
        message=entry.message,
        parked_at=entry.parked_at_ms,
        decision=entry.decision,
    )


def _kept_message(item: NotRetried) -> messages.KeptMessage:
    return messages.KeptMessage(item.parked_id, item.why)


def _in_few_words(entry: ParkedEntry) -> str:
    """The kind, and what it is about: the key, the path, the version, …."""
    payload = describe_payload(entry.kind, entry.payload)
    for name in _IDENTIFYING:
        if (value := payload.get(name)) is not None:
            return f"{entry.kind} {value}"
    return entry.kind


def _detail(transaction: Transaction, entry: ParkedEntry) -> messages.ParkedDetailAnswer:
    return messages.ParkedDetailAnswer(
        parked_id=entry.parked_id,
        run_id=entry.run_id,
        subject=describe_subject(transaction, entry.lane_kind, entry.subject_id),
        kind=entry.kind,
        payload=describe_payload(entry.kind, entry.payload),
        reason=entry.reason,
        message=entry.message,
        principal=entry.principal,
        accepted_at=entry.accepted_at_ms,
        parked_at=entry.parked_at_ms,
        decision=entry.decision,
        decided_by=entry.decided_by,
        decided_at=entry.decided_at_ms,
        decision_reason=entry.decision_reason,
    )
