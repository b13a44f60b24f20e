"""Routes about traces, their spans and their assessments."""

import asyncio
import mimetypes
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from server.api.endpoints import (
    MLFLOW_2,
    MLFLOW_3,
    Call,
    ClientDisconnectedError,
    Endpoint,
    Handler,
    json_routes,
    stream_routes,
)
from server.api.errors import send_json
from server.api.reach_rules import SpanDelivery
from server.domain.access import Permission
from server.domain.errors import ErrorCode, MlflowError
from server.protocol import assessments as assessment_messages
from server.protocol import otlp
from server.protocol import trace_metrics as metric_messages
from server.protocol import traces as messages
from server.protocol.wire import Decoder, encode, missing_parameter, require
from server.services.artifacts import Artifacts
from server.services.assessments import Assessments
from server.services.trace_metrics import TraceMetrics
from server.services.trace_spans import TraceSpans
from server.services.traces import Traces

_LARGEST_COMPRESSED_BYTES = 32 * 1024 * 1024
_EXPERIMENT_HEADER = "x-mlflow-experiment-id"
_RUN_HEADER = b"x-mlflow-run-id"
_TRACES_FILE = "traces.json"
_ATTACHMENT_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
_INERT_TYPES = ("audio/", "image/", "video/", "font/")


class TraceRoutes:
    """traces and traces/* of both versions, assessments, get-trace-artifact and the OTLP intake."""

    def __init__(
        self,
        *,
        traces: Traces,
        spans: TraceSpans,
        metrics: TraceMetrics,
        assessments: Assessments,
        artifacts: Artifacts,
    ) -> None:
        self._traces = traces
        self._spans = spans
        self._metrics = metrics
        self._assessments = assessments
        self._artifacts = artifacts
        self._file_request = Decoder(messages.TraceArtifactRequest)

    def routes(self) -> list[Endpoint]:
        """The route table."""
        both = (*MLFLOW_3, *MLFLOW_2)
        tables: list[tuple[Sequence[str], list[tuple[str, str, Handler, Permission, type[Any] | None]]]] = [
            (MLFLOW_3, self._version_3()),
            (MLFLOW_2, self._version_2()),
            (both, self._both_versions()),
        ]
        routes = [
            route
            for prefixes, table in tables
            for method, path, handler, permission, message in table
            for route in json_routes(
                method,
                f"/traces{path}",
                handler,
                permission=permission,
                message=message,
                prefixes=prefixes,
            )
        ]
        files = [f"{prefix}/get-trace-artifact" for prefix in (MLFLOW_2[1], MLFLOW_3[1])]
        return [
            *stream_routes("POST", ["/v1/traces"], self._export, permission=Permission.WRITE),
            *routes,
            *stream_routes("GET", files, self._file, permission=Permission.READ),
        ]

    def _version_3(self) -> list[tuple[str, str, Handler, Permission, type[Any] | None]]:
        read, write = Permission.READ, Permission.WRITE
        one = "/{trace_id}/assessments/{assessment_id}"
        return [
            ("POST", "", self._start, write, messages.StartTraceRequest),
            ("POST", "/search", self._search, read, messages.SearchTracesRequest),
            ("GET", "/get", self._get, read, messages.GetTraceRequest),
            ("GET", "/batchGet", self._get_many, read, messages.BatchRequest),
            ("POST", "/batchGetInfos", self._infos, read, messages.BatchRequest),
            ("POST", "/metrics", self._query_metrics, read, metric_messages.TraceMetricsRequest),
            ("POST", "/calculate-filter-correlation", self._correlate, read, messages.CorrelationRequest),
            ("GET", "/{trace_id}", self._info, read, None),
            (
                "POST",
                "/{trace_id}/assessments",
                self._create_assessment,
                write,
                assessment_messages.CreateAssessmentRequest,
            ),
            ("GET", one, self._get_assessment, read, None),
            ("PATCH", one, self._update_assessment, write, assessment_messages.UpdateAssessmentRequest),
            ("DELETE", one, self._delete_assessment, write, None),
        ]

    def _version_2(self) -> list[tuple[str, str, Handler, Permission, type[Any] | None]]:
        read, write = Permission.READ, Permission.WRITE
        return [
            ("POST", "", self._start_v2, write, messages.StartTraceV2Request),
            ("GET", "", self._search_v2, read, messages.SearchTracesV2Request),
            ("POST", "/link-to-run", self._link_to_run, write, messages.LinkTracesRequest),
            ("POST", "/link-prompts", self._link_prompts, write, messages.LinkPromptsRequest),
            ("PATCH", "/{trace_id}", self._end_v2, write, messages.EndTraceV2Request),
            ("GET", "/{trace_id}/info", self._info_v2, read, None),
        ]

    def _both_versions(self) -> list[tuple[str, str, Handler, Permission, type[Any] | None]]:
        write = Permission.WRITE
        return [
            ("POST", "/delete-traces", self._delete, write, messages.DeleteTracesRequest),
            ("PATCH", "/{trace_id}/tags", self._set_tag, write, messages.TraceTagRequest),
            ("DELETE", "/{trace_id}/tags", self._delete_tag, write, messages.TraceTagRequest),
        ]

    # --- traces ---

    async def _start(self, call: Call, request: messages.StartTraceRequest) -> messages.TraceAnswer:
        return _trace_answer(await self._traces.start(request, call.user))

    async def _info(self, call: Call, _: None) -> messages.TraceAnswer:
        return _trace_answer(await self._traces.info(call.path_params["trace_id"]))

    async def _get(self, call: Call, request: messages.GetTraceRequest) -> messages.TraceAnswer:
        require("trace_id", request.trace_id)
        return messages.TraceAnswer(await self._traces.get(request))

    async def _get_many(self, call: Call, request: messages.BatchRequest) -> messages.TracesAnswer:
        _require_list("trace_ids", request.trace_ids)
        return messages.TracesAnswer(await self._traces.get_many(request))

    async def _infos(self, call: Call, request: messages.BatchRequest) -> messages.TraceInfosAnswer:
        _require_list("trace_ids", request.trace_ids)
        return messages.TraceInfosAnswer(await self._traces.infos(request))

    async def _search(self, call: Call, request: messages.SearchTracesRequest) -> messages.TraceInfosPage:
        if request.locations is None:
            raise missing_parameter("locations")
        return messages.TraceInfosPage(*await self._traces.search(request))

    async def _correlate(
        self, call: Call, request: messages.CorrelationRequest
    ) -> messages.CorrelationAnswer:
        _require_list("experiment_ids", request.experiment_ids)
        require("filter_string1", request.filter_string1)
        require("filter_string2", request.filter_string2)
        return await self._traces.correlate(request)

    async def _query_metrics(
        self, call: Call, request: metric_messages.TraceMetricsRequest
    ) -> metric_messages.TraceMetricsAnswer:
        return metric_messages.TraceMetricsAnswer(await self._metrics.query(request))

    async def _delete(self, call: Call, request: messages.DeleteTracesRequest) -> messages.DeletedAnswer:
        require("experiment_id", request.experiment_id)
        return messages.DeletedAnswer(await self._traces.delete(request))

    async def _set_tag(self, call: Call, request: messages.TraceTagRequest) -> None:
        key = require("key", request.key)
        await self._traces.set_tag(call.path_params["trace_id"], key, request.value)

    async def _delete_tag(self, call: Call, request: messages.TraceTagRequest) -> None:
        await self._traces.delete_tag(call.path_params["trace_id"], require("key", request.key))

    async def _link_to_run(self, call: Call, request: messages.LinkTracesRequest) -> None:
        _require_list("trace_ids", request.trace_ids)
        require("run_id", request.run_id)
        await self._traces.link_to_run(request)

    async def _link_prompts(self, call: Call, request: messages.LinkPromptsRequest) -> None:
        require("trace_id", request.trace_id)
        _require_list("prompt_versions", request.prompt_versions)
        await self._traces.link_prompts(request)

    # --- version 2 ---

    async def _start_v2(
        self, call: Call, request: messages.StartTraceV2Request
    ) -> messages.TraceInfoV2Answer:
        require("experiment_id", request.experiment_id)
        return messages.TraceInfoV2Answer(await self._traces.start_v2(request, call.user))

    async def _end_v2(self, call: Call, request: messages.EndTraceV2Request) -> messages.TraceInfoV2Answer:
        return messages.TraceInfoV2Answer(await self._traces.end_v2(call.path_params["trace_id"], request))

    async def _info_v2(self, call: Call, _: None) -> messages.TraceInfoV2Answer:
        return messages.TraceInfoV2Answer(await self._traces.info_v2(call.path_params["trace_id"]))

    async def _search_v2(
        self, call: Call, request: messages.SearchTracesV2Request
    ) -> messages.TraceInfosV2Page:
        _require_list("experiment_ids", request.experiment_ids)
        return messages.TraceInfosV2Page(*await self._traces.search_v2(request))

    # --- assessments ---

    async def _create_assessment(
        self, call: Call, request: assessment_messages.CreateAssessmentRequest
    ) -> assessment_messages.AssessmentAnswer:
        created = await self._assessments.create(call.path_params["trace_id"], request, call.user)
        return assessment_messages.AssessmentAnswer(created)

    async def _get_assessment(self, call: Call, _: None) -> assessment_messages.AssessmentAnswer:
        return assessment_messages.AssessmentAnswer(await self._assessments.get(*_assessment_of(call)))

    async def _update_assessment(
        self, call: Call, request: assessment_messages.UpdateAssessmentRequest
    ) -> assessment_messages.AssessmentAnswer:
        updated = await self._assessments.update(*_assessment_of(call), request, call.user)
        return assessment_messages.AssessmentAnswer(updated)

    async def _delete_assessment(self, call: Call, _: None) -> None:
        await self._assessments.delete(*_assessment_of(call))

    # --- OTLP ---

    async def _export(self, call: Call) -> None:
        try:
            await self._take_spans(call)
        except otlp.OtlpError as error:
            await send_json(call.send, encode({"detail": error.detail}), status=error.status)
            return
        # The whole of an export's answer in protobuf when nothing was refused.
        await send_json(call.send, b"", content_type=otlp.PROTOBUF.encode())

    async def _take_spans(self, call: Call) -> None:
        experiment_id = call.header(_EXPERIMENT_HEADER.encode())
        if not experiment_id:
            raise otlp.OtlpError(422, f"The header {_EXPERIMENT_HEADER} is missing.")
        media_type = otlp.media_type_of(_text(call.header(b"content-type")))
        body = await _read_encoded(call)
        spans = await asyncio.to_thread(otlp.decode_spans, body, media_type)
        if spans:
            place, run_id = experiment_id.decode("latin-1"), _text(call.header(_RUN_HEADER))
            await call.check_reach(SpanDelivery(place, frozenset(span.trace_id for span in spans), run_id))
            await self._spans.log(
                place,
                spans,
                run_id=run_id,
                principal=call.user,
                size_bytes=len(body),
            )

    # --- files ---

    async def _file(self, call: Call) -> None:
        request: messages.TraceArtifactRequest = self._file_request.from_query(call.query)
        if not request.request_id:
            raise MlflowError(ErrorCode.BAD_REQUEST, 'Request must include the "request_id" query parameter.')
        file = await self._traces.file(request.request_id, request.path)
        name = request.path.rpartition("/")[2] or _TRACES_FILE
        headers = {
            **_ATTACHMENT_HEADERS,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        }
        kind = _content_type(name)
        if file.content is not None:
            await send_json(call.send, file.content, headers=headers, content_type=kind)
            return
        found = await self._artifacts.find(file.path)
        async with aclosing(await self._artifacts.open(found)) as chunks:
            await call.send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [
                        (b"content-type", kind),
                        (b"content-length", str(found.file.size_bytes).encode()),
                        (b"x-content-type-options", b"nosniff"),
                        *((key.lower().encode(), value.encode("latin-1")) for key, value in headers.items()),
                    ],
                }
            )
            async for chunk in chunks:
                await call.send({"type": "http.response.body", "body": chunk, "more_body": True})
            await call.send({"type": "http.response.body", "body": b""})


def _trace_answer(info: messages.TraceInfoMessage) -> messages.TraceAnswer:
    return messages.TraceAnswer(messages.TraceMessage(info))


def _assessment_of(call: Call) -> tuple[str, str]:
    return call.path_params["trace_id"], call.path_params["assessment_id"]


def _require_list(name: str, items: Sequence[object]) -> None:
    if not items:
        raise missing_parameter(name)


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")


def _content_type(name: str) -> bytes:
    """A type that no browser runs."""
    if name.endswith(".json"):
        return b"text/plain"
    guessed = mimetypes.guess_type(name)[0] or ""
    is_inert = guessed.startswith(_INERT_TYPES) and not guessed.startswith("image/svg")
    return guessed.encode() if is_inert else b"application/octet-stream"


async def _read_encoded(call: Call) -> bytes:
    """The body without its compression; both sizes are counted while it comes in."""
    encoding = (_text(call.header(b"content-encoding")) or "").lower()
    decoder = otlp.BodyDecoder(encoding)
    left = _LARGEST_COMPRESSED_BYTES
    has_more = True
    while has_more:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        piece: bytes = message.get("body", b"")
        left -= len(piece)
        if left < 0:
            raise MlflowError(
                ErrorCode.INVALID_PARAMETER_VALUE,
                f"The request body is larger than {_LARGEST_COMPRESSED_BYTES} bytes.",
                status=413,
            )
        decoder.feed(piece)
        has_more = message.get("more_body", False)
    return decoder.finish()
