"""Traces: start, end, find, search, tag, link, delete. The workspace has no traces: all of it stays here."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.errors import does_not_exist, invalid_parameter
from server.protocol import limits, paging
from server.protocol import traces as messages
from server.protocol.artifacts import prefix_of_uri
from server.protocol.assessments import Assessment, assessment_message, parse_assessment
from server.protocol.experiments import TagMessage
from server.protocol.moments import check_moment, format_duration, format_moment, parse_duration, parse_moment
from server.protocol.search.traces import TraceComparison, TraceOrder, parse_trace_filter, parse_trace_order
from server.protocol.spans import loaded, object_attribute, span_message
from server.protocol.wire import missing_parameter
from server.services.assessments import add_assessments
from server.services.identity import get_experiment, require_active_experiment, resolve_experiment_id
from server.services.trace_spans import artifact_uri
from server.store import assessments, traces
from server.store.search.traces import CommonTraces, count_common, find_traces
from server.store.traces import StoredSpan, Trace, TraceDetails

_MOST_LINKS = 100
_DELETED_AT_ONCE = 200
_TRACES_FILE = "traces.json"
_PRIOR = 0.5
_IN_PROGRESS = "IN_PROGRESS"


@dataclass(frozen=True, slots=True)
class TraceFile:
    """What a trace's artifact is: the spans kept here, or a path among the artifacts."""

    content: bytes | None
    path: str


class Traces:
    """What can be done with traces.

    `waits` are the pauses, in seconds, in which a reader waits for spans that are still on their way.
    """

    def __init__(self, *, database: Database, writer: Writer, waits: Sequence[float] = (1.0, 2.0)) -> None:
        self._database = database
        self._writer = writer
        self._waits = tuple(waits)

    # --- life ---

    async def start(
        self, request: messages.StartTraceRequest, principal: str | None
    ) -> messages.TraceInfoMessage:
        """Store what a client says of a trace, over what its spans have told."""
        given = _given(request)

        def apply(transaction: Transaction) -> messages.TraceInfoMessage:
            return _start(transaction, given, principal)

        size = sum(map(len, (*given.tags.values(), *given.metadata.values())))
        return await self._writer.commit(Work(apply, size_bytes=256 + size, rows=4 + len(given.assessments)))

    async def start_v2(
        self, request: messages.StartTraceV2Request, principal: str | None
    ) -> messages.TraceInfoV2Message:
        """Begin a trace under an id of our own."""
        start_ms = check_moment(request.timestamp_ms, "timestamp_ms")
        tags = messages.check_pairs(_pairs(request.tags), "tags")
        metadata = messages.check_pairs(_pairs(request.request_metadata), "request_metadata")
        messages.check_name(tags)
        session = messages.check_session(metadata)
        trace = Trace(0, uuid4().hex, 0, start_ms, None, _IN_PROGRESS, session_id=session)

        def apply(transaction: Transaction) -> messages.TraceInfoV2Message:
            experiment = get_experiment(transaction, request.experiment_id)
            require_active_experiment(experiment)
            new = replace(trace, experiment_id=experiment.experiment_id)
            new.trace_pk = traces.insert(transaction, new, principal)
            tags[messages.ARTIFACT_TAG] = artifact_uri(experiment, new.trace_id)
            _describe(transaction, new.trace_pk, tags, metadata)
            return _info_v2(transaction, new)

        return await self._writer.commit(Work(apply, rows=2 + len(tags) + len(metadata)))

    async def end_v2(
        self, request_id: str, request: messages.EndTraceV2Request
    ) -> messages.TraceInfoV2Message:
        """End a trace that was begun under version 2."""
        end_ms = check_moment(request.timestamp_ms, "timestamp_ms")
        state = messages.parse_state(request.status)
        tags = messages.check_pairs(_pairs(request.tags), "tags")
        metadata = messages.check_pairs(_pairs(request.request_metadata), "request_metadata")
        messages.check_name(tags)
        session = messages.check_session(metadata)

        def apply(transaction: Transaction) -> messages.TraceInfoV2Message:
            trace = _get(transaction, request_id)
            trace.execution_time_ms = end_ms - trace.timestamp_ms
            trace.state = state
            trace.session_id = session or trace.session_id
            traces.update(transaction, trace)
            _describe(transaction, trace.trace_pk, tags, metadata)
            return _info_v2(transaction, trace)

        return await self._writer.commit(Work(apply, rows=2 + len(tags) + len(metadata)))

    async def delete(self, request: messages.DeleteTracesRequest) -> int:
        """Delete traces, the oldest first; how many there were."""
        messages.check_deletion(request)
        experiment_id = await self._database.read(
            lambda transaction: resolve_experiment_id(transaction, request.experiment_id)
        )
        left = request.max_traces
        deleted = 0
        while left is None or left > 0:
            at_most = _DELETED_AT_ONCE if left is None else min(left, _DELETED_AT_ONCE)
            work = Work(
                partial(_delete_some, experiment_id=experiment_id, request=request, at_most=at_most),
                rows=at_most,
            )
            count = await self._writer.commit(work)
            deleted += count
            if count < at_most:
                break
            left = None if left is None else left - count
        return deleted

    # --- tags and links ---

    async def set_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set one tag."""
        messages.refuse_reserved_tag(key, deleting=False)
        name, text = messages.parse_trace_tag(key, value)

        def apply(transaction: Transaction) -> None:
            traces.set_tags(transaction, _get(transaction, trace_id).trace_pk, {name: text})

        await self._writer.commit(Work(apply))

    async def delete_tag(self, trace_id: str, key: str) -> None:
        """Delete one tag, which must be there."""
        messages.refuse_reserved_tag(key, deleting=True)

        def apply(transaction: Transaction) -> None:
            trace = traces.find(transaction, trace_id)
            if trace is None or not traces.delete_tag(transaction, trace.trace_pk, key):
                raise does_not_exist(f"No trace tag with key '{key}' for trace with ID '{trace_id}'")

        await self._writer.commit(Work(apply))

    async def link_to_run(self, request: messages.LinkTracesRequest) -> None:
        """Link traces to a run; either may still be on its way."""
        if len(request.trace_ids) > _MOST_LINKS:
            raise invalid_parameter(
                f"Cannot link more than {_MOST_LINKS} traces to a run in a single request. Provided"
                f" {len(request.trace_ids)} traces."
            )
        for trace_id in (*request.trace_ids, request.run_id):
            messages.check_trace_id(trace_id)

        def apply(transaction: Transaction) -> None:
            traces.link(transaction, request.trace_ids, traces.RUN_LINK, [request.run_id])

        await self._writer.commit(Work(apply, rows=len(request.trace_ids)))

    async def link_prompts(self, request: messages.LinkPromptsRequest) -> None:
        """Link versions of prompts to a trace."""
        targets = []
        for prompt in request.prompt_versions:
            if not prompt.version.isdigit():
                raise limits.invalid_value("prompt_versions.version", prompt.version)
            targets.append(messages.check_trace_id(f"{prompt.name}/{int(prompt.version)}", "prompt_versions"))

        def apply(transaction: Transaction) -> None:
            _get(transaction, request.trace_id)
            traces.link(transaction, [request.trace_id], traces.PROMPT_LINK, targets)

        await self._writer.commit(Work(apply, rows=len(targets)))

    # --- reading ---

    async def info(self, trace_id: str) -> messages.TraceInfoMessage:
        """One trace without its spans."""
        return await self._database.read(
            lambda transaction: load_infos(transaction, [_get(transaction, trace_id)])[0]
        )

    async def info_v2(self, trace_id: str) -> messages.TraceInfoV2Message:
        """One trace without its spans, in the words of version 2."""
        return await self._database.read(
            lambda transaction: _info_v2(transaction, _get(transaction, trace_id))
        )

    async def get(self, request: messages.GetTraceRequest) -> messages.TraceMessage:
        """One trace with its spans. Unless a part is enough, spans that are on their way are waited for."""
        for wait in (*self._waits, None):
            found = await self._database.read(
                lambda transaction: _load_whole(transaction, request.trace_id, request.allow_partial)
            )
            if found is not None:
                return found
            if wait is not None:
                await asyncio.sleep(wait)
        raise does_not_exist(
            f"Trace with ID {request.trace_id} is not fully exported yet, please try again later."
        )

    async def get_many(self, request: messages.BatchRequest) -> list[messages.TraceMessage]:
        """The traces whose spans are all here, in the order asked for."""

        def find(transaction: Transaction) -> list[messages.TraceMessage]:
            found = _find_many(transaction, request)
            stored = traces.list_spans(transaction, [trace.trace_pk for trace in found])
            loaded_infos = load_infos(transaction, found)
            return [
                messages.TraceMessage(info, [span_message(span.content) for span in spans])
                for trace, info in zip(found, loaded_infos, strict=True)
                if (spans := stored.get(trace.trace_pk, [])) and _is_complete(info.trace_metadata, spans)
            ]

        return await self._database.read(find)

    async def infos(self, request: messages.BatchRequest) -> list[messages.TraceInfoMessage]:
        """The traces without their spans, in the order asked for."""
        return await self._database.read(
            lambda transaction: load_infos(transaction, _find_many(transaction, request))
        )

    async def file(self, trace_id: str, attachment: str) -> TraceFile:
        """What a trace's file is: the spans, or an attachment."""

        def find(transaction: Transaction) -> TraceFile:
            trace = traces.find(transaction, trace_id)
            if trace is None:
                raise does_not_exist(f"Trace with ID {trace_id} is not found.")
            details = traces.list_details(transaction, [trace.trace_pk])[trace.trace_pk]
            if not attachment and details.tags.get(messages.SPANS_TAG) == messages.SPANS_HERE:
                spans = traces.list_spans(transaction, [trace.trace_pk]).get(trace.trace_pk, [])
                return TraceFile(
                    ('{"spans":[' + ",".join(span.content for span in spans) + "]}").encode(), ""
                )
            folder = prefix_of_uri(details.tags.get(messages.ARTIFACT_TAG, ""))
            if folder is None:
                raise does_not_exist(f"The files of trace '{trace_id}' are not kept by this server.")
            return TraceFile(None, f"{folder}/{f'attachments/{attachment}' if attachment else _TRACES_FILE}")

        return await self._database.read(find)

    # --- searching ---

    async def search(
        self, request: messages.SearchTracesRequest
    ) -> tuple[list[messages.TraceInfoMessage], str | None]:
        """A page of traces, and the token of the next one."""
        places = [
            item.mlflow_experiment.experiment_id for item in request.locations or () if item.mlflow_experiment
        ]
        search = _Search.of(request, places)

        def find(transaction: Transaction) -> tuple[list[messages.TraceInfoMessage], str | None]:
            found, token = search.run(transaction)
            return load_infos(transaction, found), token

        return await self._database.read(find)

    async def search_v2(
        self, request: messages.SearchTracesV2Request
    ) -> tuple[list[messages.TraceInfoV2Message], str | None]:
        """A page of traces in the words of version 2, and the token of the next one."""
        search = _Search.of(request, request.experiment_ids)

        def find(transaction: Transaction) -> tuple[list[messages.TraceInfoV2Message], str | None]:
            found, token = search.run(transaction)
            details = traces.list_details(transaction, [trace.trace_pk for trace in found])
            return [_message_v2(trace, details[trace.trace_pk]) for trace in found], token

        return await self._database.read(find)

    async def correlate(self, request: messages.CorrelationRequest) -> messages.CorrelationAnswer:
        """How much more often two filters meet in a trace than chance would have it."""
        first = parse_trace_filter(request.filter_string1)
        second = parse_trace_filter(request.filter_string2)
        base = parse_trace_filter(request.base_filter)

        def count(transaction: Transaction) -> CommonTraces:
            return count_common(
                transaction.connection,
                experiment_ids=[resolve_experiment_id(transaction, text) for text in request.experiment_ids],
                first=[*base, *first],
                second=[*base, *second],
                base=base,
            )

        counts = await self._database.read(count)
        return messages.CorrelationAnswer(
            counts.first, counts.second, counts.both, counts.total, *correlation(counts)
        )


@dataclass(frozen=True, slots=True)
class _Search:
    """A search, its texts read."""

    places: Sequence[str]
    filters: Sequence[TraceComparison]
    order: Sequence[TraceOrder]
    offset: int
    limit: int

    @classmethod
    def of(
        cls, request: messages.SearchTracesRequest | messages.SearchTracesV2Request, places: Sequence[str]
    ) -> "_Search":
        """The search that a request asks for."""
        return cls(
            places,
            parse_trace_filter(request.filter),
            parse_trace_order(request.order_by),
            paging.decode_offset(request.page_token),
            messages.check_trace_page(request.max_results),
        )

    def run(self, transaction: Transaction) -> tuple[list[Trace], str | None]:
        """The page, and the token of the next one."""
        trace_pks, has_more = find_traces(
            transaction.connection,
            experiment_ids=[resolve_experiment_id(transaction, text) for text in self.places],
            filters=self.filters,
            order=self.order,
            offset=self.offset,
            limit=self.limit,
        )
        token = paging.encode_offset(self.offset + self.limit) if has_more else None
        return traces.list_by_pk(transaction, trace_pks), token


# --- starting -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """What a client says of a trace."""

    experiment_id: str
    trace: Trace
    tags: dict[str, str]
    metadata: dict[str, str]
    assessments: list[Assessment]


def _given(request: messages.StartTraceRequest) -> _Given:
    if request.trace is None:
        raise missing_parameter("trace")
    info = request.trace.trace_info
    if info is None:
        raise missing_parameter("trace.trace_info")
    location = info.trace_location.mlflow_experiment if info.trace_location else None
    if location is None or not location.experiment_id:
        raise missing_parameter("trace.trace_info.trace_location.mlflow_experiment.experiment_id")
    if not info.trace_id:
        raise missing_parameter("trace.trace_info.trace_id")
    path = "trace.trace_info"
    tags = messages.check_pairs(info.tags.items(), "tags")
    metadata = messages.check_pairs(info.trace_metadata.items(), "trace_metadata")
    messages.check_name(tags)
    trace = Trace(
        0,
        messages.check_trace_id(info.trace_id),
        0,
        check_moment(parse_moment(info.request_time, f"{path}.request_time"), f"{path}.request_time"),
        parse_duration(info.execution_duration, f"{path}.execution_duration"),
        messages.parse_state(info.state),
        messages.check_preview(info.client_request_id, f"{path}.client_request_id"),
        messages.check_preview(info.request_preview, f"{path}.request_preview"),
        messages.check_preview(info.response_preview, f"{path}.response_preview"),
        messages.check_session(metadata),
    )
    given = [
        parse_assessment(item, f"{path}.assessments[{index}]") for index, item in enumerate(info.assessments)
    ]
    return _Given(location.experiment_id, trace, tags, metadata, given)


def _start(transaction: Transaction, given: _Given, principal: str | None) -> messages.TraceInfoMessage:
    experiment = get_experiment(transaction, given.experiment_id)
    require_active_experiment(experiment)
    trace = replace(given.trace, experiment_id=experiment.experiment_id)
    known = traces.find(transaction, trace.trace_id)
    if known is None:
        trace.trace_pk = traces.insert(transaction, trace, principal)
    else:
        trace.trace_pk = known.trace_pk
        trace.request_preview = (
            known.request_preview if trace.request_preview is None else trace.request_preview
        )
        trace.response_preview = (
            known.response_preview if trace.response_preview is None else trace.response_preview
        )
        trace.session_id = trace.session_id or known.session_id
        traces.update(transaction, trace)
    tags = {**given.tags, messages.ARTIFACT_TAG: artifact_uri(experiment, trace.trace_id)}
    _describe(transaction, trace.trace_pk, tags, {**given.metadata, messages.FINALIZED: "true"})
    add_assessments(transaction, trace.trace_pk, given.assessments, principal)
    return load_infos(transaction, [trace])[0]


def _describe(
    transaction: Transaction, trace_pk: int, tags: dict[str, str], metadata: dict[str, str]
) -> None:
    traces.set_tags(transaction, trace_pk, tags)
    traces.set_metadata(transaction, trace_pk, metadata)
    if messages.USAGE in metadata:
        traces.set_tokens(transaction, trace_pk, object_attribute(metadata, messages.USAGE) or {})


def _pairs(items: Sequence[TagMessage]) -> list[tuple[str, str]]:
    return [(item.key, item.value) for item in items]


def _delete_some(
    transaction: Transaction, experiment_id: int, request: messages.DeleteTracesRequest, at_most: int
) -> int:
    found = traces.list_for_deletion(
        transaction,
        experiment_id,
        until_ms=request.max_timestamp_millis,
        limit=at_most,
        trace_ids=request.request_ids,
    )
    traces.delete(transaction, found)
    return len(found)


# --- loading --------------------------------------------------------------------------------


def _get(transaction: Transaction, trace_id: str) -> Trace:
    trace = traces.find(transaction, trace_id)
    if trace is None:
        raise does_not_exist(f"Trace with ID '{trace_id}' not found.")
    return trace


def _find_many(transaction: Transaction, request: messages.BatchRequest) -> list[Trace]:
    found = traces.find_many(transaction, dict.fromkeys(request.trace_ids))
    places = None
    if request.experiment_ids is not None:
        places = {resolve_experiment_id(transaction, text) for text in request.experiment_ids}
    return [
        found[trace_id]
        for trace_id in dict.fromkeys(request.trace_ids)
        if trace_id in found and (places is None or found[trace_id].experiment_id in places)
    ]


def load_infos(transaction: Transaction, found: Sequence[Trace]) -> list[messages.TraceInfoMessage]:
    """The traces with all but their spans, in as many statements as there are kinds of data."""
    trace_pks = [trace.trace_pk for trace in found]
    details = traces.list_details(transaction, trace_pks)
    given = assessments.list_of_traces(transaction, trace_pks)
    return [
        messages.TraceInfoMessage(
            trace_id=trace.trace_id,
            client_request_id=trace.client_request_id,
            trace_location=messages.LocationMessage(
                "MLFLOW_EXPERIMENT", messages.ExperimentLocation(str(trace.experiment_id))
            ),
            request_preview=trace.request_preview,
            response_preview=trace.response_preview,
            request_time=format_moment(trace.timestamp_ms),
            execution_duration=(
                None if trace.execution_time_ms is None else format_duration(trace.execution_time_ms)
            ),
            state=trace.state,
            trace_metadata=messages.shown_metadata(details[trace.trace_pk].metadata),
            assessments=[assessment_message(item, trace.trace_id) for item in given.get(trace.trace_pk, ())],
            tags=messages.shown_tags(details[trace.trace_pk].tags),
        )
        for trace in found
    ]


def _load_whole(transaction: Transaction, trace_id: str, allow_partial: bool) -> messages.TraceMessage | None:
    """The trace with its spans; None while some are missing that must not be."""
    trace = traces.find(transaction, trace_id)
    if trace is None:
        raise does_not_exist(f"Trace with ID {trace_id} is not found.")
    info = load_infos(transaction, [trace])[0]
    if info.tags.get(messages.SPANS_TAG) != messages.SPANS_HERE:
        raise does_not_exist("Trace data not stored in tracking store")
    spans = traces.list_spans(transaction, [trace.trace_pk]).get(trace.trace_pk, [])
    if not allow_partial and not (spans and _is_complete(info.trace_metadata, spans)):
        return None
    return messages.TraceMessage(info, [span_message(span.content) for span in spans])


def _is_complete(metadata: dict[str, str], spans: Sequence[StoredSpan]) -> bool:
    """Whether there are as many spans as the client said there would be."""
    stats = loaded(metadata.get(messages.SIZE_STATS))
    expected = stats.get("num_spans") if isinstance(stats, dict) else None
    return not isinstance(expected, int) or len(spans) >= expected


def _info_v2(transaction: Transaction, trace: Trace) -> messages.TraceInfoV2Message:
    return _message_v2(trace, traces.list_details(transaction, [trace.trace_pk])[trace.trace_pk])


def _message_v2(trace: Trace, details: TraceDetails) -> messages.TraceInfoV2Message:
    return messages.TraceInfoV2Message(
        trace.trace_id,
        str(trace.experiment_id),
        trace.timestamp_ms,
        trace.execution_time_ms or 0,
        messages.status_of(trace.state),
        [TagMessage(*pair) for pair in messages.shown_metadata(details.metadata).items()],
        [TagMessage(*pair) for pair in messages.shown_tags(details.tags).items()],
    )


# --- correlating ----------------------------------------------------------------------------


def correlation(counts: CommonTraces) -> tuple[float | None, float | None]:
    """The normalised pointwise mutual information of two filters, plain and smoothed (Jeffreys)."""
    only_first, only_second = counts.first - counts.both, counts.second - counts.both
    neither = counts.total - counts.first - counts.second + counts.both
    cells = (counts.both, only_first, only_second, neither)
    if not counts.total or not counts.first or not counts.second or min(cells) < 0:
        return None, None
    plain = _npmi(cells, 0.0) if counts.both else -1.0
    return plain, _npmi(cells, _PRIOR)


def _npmi(cells: tuple[int, int, int, int], prior: float) -> float:
    if not any(cells[1:]):
        return 1.0
    both, only_first, only_second, neither = (cell + prior for cell in cells)
    total = both + only_first + only_second + neither
    information = (math.log(both) + math.log(total)) - (
        math.log(both + only_first) + math.log(both + only_second)
    )
    return max(-1.0, min(1.0, information / (math.log(total) - math.log(both))))
