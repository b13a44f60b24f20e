"""Misbehaviour on request.

A fault matches `METHOD /path` by regular expression and spoils the answer before or after the real
effect. The first fault that matches and is not used up decides. Faults live in memory: a restarted
emulator behaves.
"""

import asyncio
import json
import re
import time
import uuid
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emulator.calls import transport_of

_LONGEST_NAP_SECONDS = 0.05
GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


class Effect(StrEnum):
    """What a fault does to an answer. `drip`: the body comes a byte every `delay_seconds`."""

    STATUS = "status"
    DELAY = "delay"
    DROP_ANSWER = "drop_answer"
    HTML = "html"
    CUT_BODY = "cut_body"
    DRIP = "drip"


class Moment(StrEnum):
    """Before or after the real effect."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(slots=True)
class Fault:
    """One way to misbehave, and how often it did."""

    match: str
    effect: Effect
    when: Moment = Moment.BEFORE
    status: int | None = None
    times: int | None = None
    after_calls: int = 0
    delay_seconds: float = 1.0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    fault_id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    seen: int = 0
    hits: int = 0

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Fault":
        """Raises `ValueError`, `TypeError` or `re.error` for one that makes no sense."""
        values = dict(document)
        values["effect"] = Effect(values.get("effect", ""))
        values["when"] = Moment(values.get("when", Moment.BEFORE))
        re.compile(values.get("match", ""))
        return cls(**{name: value for name, value in values.items() if name not in {"seen", "hits"}})

    def strikes(self, call: str) -> bool:
        """Count this call and say whether the fault spoils it."""
        if not re.search(self.match, call):
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.seen += 1
        if self.seen <= self.after_calls:
            return False
        self.hits += 1
        return True

    def as_json(self) -> dict[str, Any]:
        """The fault with its counts."""
        return asdict(self)


class Faults:
    """Those now in force, in the order they were added."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Add one behind the others."""
        self._faults.append(fault)

    def remove(self, fault_id: str) -> bool:
        """Remove one; says whether it was there."""
        kept = [fault for fault in self._faults if fault.fault_id != fault_id]
        removed = len(kept) < len(self._faults)
        self._faults = kept
        return removed

    def clear(self) -> None:
        """Remove all. Answers that one of them holds back go out now."""
        self._faults.clear()

    def has(self, fault: Fault) -> bool:
        """Whether it is still in force, or was until its count was used up."""
        return any(one is fault for one in self._faults)

    def list(self) -> list[dict[str, Any]]:
        """All of them, with their counts."""
        return [fault.as_json() for fault in self._faults]

    def find(self, call: str) -> Fault | None:
        """The fault that spoils this call, if any; counts."""
        return next((fault for fault in self._faults if fault.strikes(call)), None)


class FaultInjector:
    """The layer that spoils answers; notes the fault in `scope["state"]["fault_id"]`."""

    def __init__(self, app: ASGIApp, *, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call, spoiled if a fault strikes."""
        fault = None
        if scope["type"] == "http" and not scope["path"].startswith("/emulator"):
            fault = self._faults.find(f"{scope['method']} {scope['path']}")
        if fault is None:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["fault_id"] = fault.fault_id
        match fault.effect:
            case Effect.DELAY:
                await self._delay(fault, scope, receive, send)
            case Effect.CUT_BODY:
                await self._app(scope, receive, _Cut(send))
            case Effect.DRIP:
                await self._app(scope, receive, _Drip(send, fault.delay_seconds))
            case Effect.DROP_ANSWER:
                await self._first_the_effect(fault, scope, receive)
                await drop(receive, send)
            case Effect.STATUS | Effect.HTML:
                await self._first_the_effect(fault, scope, receive)
                await answer(fault, send)

    async def _delay(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.when is Moment.BEFORE:
            await self._hold_back(fault)
            await self._app(scope, receive, send)
            return
        held: list[Message] = []
        await self._app(scope, receive, _Held(held))
        await self._hold_back(fault)
        for message in held:
            await send(message)

    async def _hold_back(self, fault: Fault) -> None:
        """For as long as the fault says, or until it is removed."""
        until = time.monotonic() + fault.delay_seconds
        while (left := until - time.monotonic()) > 0 and self._faults.has(fault):  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(min(left, _LONGEST_NAP_SECONDS))

    async def _first_the_effect(self, fault: Fault, scope: Scope, receive: Receive) -> None:
        if fault.when is Moment.AFTER:
            await self._app(scope, receive, _Held([]))
            return
        while (await receive()).get("more_body"):
            pass


class _Held:
    """Takes an answer instead of sending it."""

    def __init__(self, held: list[Message]) -> None:
        self._held = held

    async def __call__(self, message: Message) -> None:
        self._held.append(message)


class _Cut:
    """Sends the head and half of the body, then closes the connection."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_cut = False

    async def __call__(self, message: Message) -> None:
        if self._is_cut:
            return
        if message["type"] != "http.response.body" or not message.get("body"):
            await self._send(message)
            return
        self._is_cut = True
        body = message["body"]
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        transport_of(self._send).close()


class _Drip:
    """Sends the body a byte at a time, as long as someone listens."""

    def __init__(self, send: Send, pause_seconds: float) -> None:
        self._send = send
        self._pause_seconds = pause_seconds

    async def __call__(self, message: Message) -> None:
        for byte in message.get("body") or b"":
            if transport_of(self._send).is_closing():
                return
            await self._send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
            await asyncio.sleep(self._pause_seconds)
        await self._send({**message, "body": b""} if "body" in message else message)


async def drop(receive: Receive, send: Send) -> None:
    """Close the connection without an answer and wait until the server has noticed."""
    transport_of(send).abort()
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(fault: Fault, send: Send) -> None:
    """The fault's own answer."""
    if fault.effect is Effect.HTML:
        status, body, kind = fault.status or 502, fault.body or GATEWAY_PAGE, "text/html"
    elif isinstance(fault.body, str):
        status, body, kind = fault.status or 503, fault.body, "text/plain"
    else:
        status, kind = fault.status or 503, "application/json"
        body = "" if fault.body is None else json.dumps(fault.body)
    content = str(body).encode()
    headers = {"content-type": kind, **fault.headers, "content-length": str(len(content))}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})
