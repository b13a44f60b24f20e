"""A backup, as a download for administrators; `mlproxy backup` asks for it over the admin socket."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.api.endpoints import OWN, Call, Endpoint, stream_routes
from server.api.streaming import send_body
from server.domain.access import Permission
from server.services.backup import Backups

EXPECTED_BYTES = "x-mlproxy-expected-bytes"
"""The header that says about how large the backup will be."""

# Whoever does not take a piece in this time shall not hold the snapshot for ever.
_LONGEST_SEND_SECONDS = 60.0


class BackupRoutes:
    """/api/2.0/mlproxy/backup."""

    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def routes(self) -> list[Endpoint]:
        """The route table."""
        paths = [f"{prefix}/backup" for prefix in OWN]
        return stream_routes("GET", paths, self._send_backup, permission=Permission.ADMIN)

    async def _send_backup(self, call: Call) -> None:
        """Everything the server holds. A download that breaks off has no manifest: no restore takes it."""
        expected = await self._backups.expected_bytes()
        async with aclosing(self._backups.stream()) as pieces:
            first = await anext(pieces)  # what can be refused is refused before an answer begins
            headers = [
                (b"content-type", b"application/x-tar"),
                (b"content-disposition", b'attachment; filename="mlproxy-backup.tar"'),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                (EXPECTED_BYTES.encode(), str(expected).encode()),
            ]
            await call.send({"type": "http.response.start", "status": 200, "headers": headers})
            await send_body(call, _continued(first, pieces), longest_send_seconds=_LONGEST_SEND_SECONDS)


async def _continued(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in pieces:
        yield piece
