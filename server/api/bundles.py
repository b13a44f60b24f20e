"""Routes that export and import experiments as a bundle; `mlproxy export` and `mlproxy import` call them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import msgspec

from server.api.endpoints import OWN, Call, Endpoint, json_routes, read_body, stream_routes
from server.api.errors import send_json
from server.api.streaming import send_body
from server.domain.access import Permission
from server.domain.errors import invalid_parameter
from server.protocol import bundles as messages
from server.protocol.wire import Decoder, encode
from server.services.exports import Exports
from server.services.imports import Imports
from server.telemetry.audit import audit

# Whoever does not take a piece in this time has gone.
_LONGEST_SEND_SECONDS = 60.0
_MOST_DIGITS = 8


class BundleRoutes:
    """/api/2.0/mlproxy/export and import."""

    def __init__(self, *, exports: Exports, imports: Imports) -> None:
        self._exports = exports
        self._imports = imports
        self._decode_export = Decoder(messages.ExportRequest)

    def routes(self) -> list[Endpoint]:
        """The route table."""
        own, admin = OWN[0], Permission.ADMIN
        return [
            *stream_routes("POST", [f"{own}/export"], self._export, permission=admin),
            *json_routes(
                "POST",
                "/import",
                self._begin,
                permission=admin,
                message=messages.BeginImportRequest,
                prefixes=OWN,
            ),
            *stream_routes("POST", [f"{own}/import/{{bundle_id}}/{{number}}"], self._apply, permission=admin),
        ]

    async def _export(self, call: Call) -> None:
        """A bundle as a download. One that breaks off has no manifest: no import takes it."""
        request = cast(messages.ExportRequest, self._decode_export.from_body(await read_body(call)))
        chosen = await self._exports.find(request.experiments)
        audit("experiments_exported", operator=call.operator, experiments=[item.name for item in chosen])
        async with aclosing(cast(AsyncGenerator[bytes, None], self._exports.stream(chosen))) as pieces:
            headers = [
                (b"content-type", b"application/x-tar"),
                (b"content-disposition", b'attachment; filename="mlproxy-bundle.tar"'),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
            ]
            await call.send({"type": "http.response.start", "status": 200, "headers": headers})
            await send_body(call, pieces, longest_send_seconds=_LONGEST_SEND_SECONDS)

    async def _begin(self, call: Call, request: messages.BeginImportRequest) -> messages.BeginImportAnswer:
        next_part = await self._imports.begin(request.bundle_id, request.experiments)
        audit(
            "import_begun",
            operator=call.operator,
            bundle_id=request.bundle_id,
            experiments=request.experiments,
            next_part=next_part,
        )
        return messages.BeginImportAnswer(next_part)

    async def _apply(self, call: Call) -> None:
        text = call.path_params["number"]
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise invalid_parameter(f"'{text[:80]}' is not the number of a part.")
        body = await read_body(call, messages.LARGEST_PARTS_BYTES)
        try:
            parts = messages.decode_parts(body)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise invalid_parameter(f"The part cannot be read: {error}") from error
        upload_to = await self._imports.apply(call.path_params["bundle_id"], int(text), parts, call.user)
        await send_json(call.send, encode(messages.ImportPartAnswer(upload_to)))
