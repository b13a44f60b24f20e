"""`POST /api/2.0/mlproxy/doctor`: findings as they come, one JSON object a line."""

from collections.abc import Callable

from server.api.endpoints import Call, Endpoint, stream_routes
from server.domain.access import Permission
from server.protocol.wire import encode
from server.services.doctor import Doctor


class DoctorRoutes:
    """The examination, for administrators. `open_doctor` makes one for each time."""

    def __init__(self, open_doctor: Callable[[], Doctor]) -> None:
        self._open_doctor = open_doctor

    def routes(self) -> list[Endpoint]:
        """The route table."""
        return stream_routes("POST", ["/api/2.0/mlproxy/doctor"], self._examine, permission=Permission.ADMIN)

    async def _examine(self, call: Call) -> None:
        headers = [(b"content-type", b"application/x-ndjson")]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        async for finding in self._open_doctor().examine():
            line = encode(finding) + b"\n"
            await call.send({"type": "http.response.body", "body": line, "more_body": True})
        await call.send({"type": "http.response.body", "body": b""})
