"""The log of calls: what arrived, in the order it ended, with what came of it.

`status` is null where the caller got no answer. Calls to the emulator's own pages are not logged.
"""

import re
import time
from asyncio import Transport
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_RECORDS = 500_000
RESOURCE = re.compile(
    r"/subscriptions/[^/]+/resourceGroups/[^/]+"
    r"/providers/Microsoft\.MachineLearningServices/workspaces/[^/]+",
    re.IGNORECASE,
)
TEMPLATES = (
    (re.compile(r"/experiments/[^/]+(?=/|$)"), "/experiments/{experiment}"),
    (re.compile(r"/experimentids/[^/]+"), "/experimentids/{experiment}"),
    (re.compile(r"/runs/[^/]+"), "/runs/{run}"),
    (re.compile(r"/artifacts/(ExperimentRun|LocalUpload)/[^/]+"), r"/artifacts/\1/{container}"),
)


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call, after it ended."""

    seq: int
    time: float
    seconds: float
    method: str
    path: str
    query: str
    status: int | None
    fault_id: str | None
    bytes: int
    response_bytes: int


class Calls:
    """Every call since the last `clear`, up to so many: the oldest go first."""

    def __init__(self) -> None:
        self._records: deque[CallRecord] = deque(maxlen=MOST_RECORDS)

    def add(self, record: CallRecord) -> None:
        """Keep a record."""
        self._records.append(record)

    def clear(self) -> None:
        """Forget all records."""
        self._records.clear()

    def list(self, since: int) -> list[dict[str, Any]]:
        """Records after the one with this `seq`."""
        return [asdict(record) for record in self._records if record.seq > since]

    def count_by_template(self) -> dict[str, int]:
        """How often each kind of call came."""
        counts = Counter(f"{record.method} {template_of(record.path)}" for record in self._records)
        return dict(sorted(counts.items()))


class CallRecorder:
    """The outermost layer: counts bytes both ways and writes the record."""

    def __init__(self, app: ASGIApp, *, calls: Calls, next_seq: Callable[[], int]) -> None:
        self._app = app
        self._calls = calls
        self._next_seq = next_seq

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on and keep its record, whatever comes of it."""
        if scope["type"] != "http" or scope["path"].startswith("/emulator"):
            await self._app(scope, receive, send)
            return
        meter = _Meter(receive, send)
        started = time.time()
        try:
            await self._app(scope, meter.receive, meter.send)
        finally:
            self._calls.add(
                CallRecord(
                    seq=self._next_seq(),
                    time=started,
                    seconds=round(time.time() - started, 6),
                    method=scope["method"],
                    path=scope["path"],
                    query=scope["query_string"].decode("latin-1"),
                    status=meter.status,
                    fault_id=scope.get("state", {}).get("fault_id"),
                    bytes=meter.received,
                    response_bytes=meter.sent,
                )
            )


class _Meter:
    """Counts what passes."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.transport = transport_of(send)
        self.received = 0
        self.sent = 0
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body") or b"")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.sent += len(message.get("body") or b"")
        await self._send(message)


def transport_of(send: Send) -> Transport:
    """The TCP connection behind an ASGI `send`: a bound method of uvicorn's request cycle, or of a layer."""
    owner = getattr(send, "__self__", None)
    return cast(Transport, getattr(owner, "transport", None))


def template_of(path: str) -> str:
    """A path with its names replaced, for counting."""
    path = RESOURCE.sub("{WS}", path)
    if ".blob.core.windows.net/" in path or path.startswith("/azureml/"):
        return "/{account}/{container}/{blob}"
    if "/api/2.0/" in path or "/api/3.0/" in path:
        return path
    for pattern, name in TEMPLATES:
        path = pattern.sub(name, path)
    return path
