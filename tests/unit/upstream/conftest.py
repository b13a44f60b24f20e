"""Fakes at the two seams of the package: the HTTP transport and azure-identity's credential object."""

import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import httpx
import pytest
import pytest_asyncio

from server.upstream.connection import Connection
from server.upstream.credentials import TokenSource
from server.upstream.workspace import WorkspaceAddress

ADDRESS = WorkspaceAddress(
    "https://westeurope.api.azureml.ms", "00000000-0000-0000-0000-000000000001", "group", "workspace"
)
Answer = Callable[[httpx.Request], httpx.Response]


class TurnedClock:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def now_ms(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class FakeIdentity:
    """Hands out `token-1`, `token-2`, … and counts; stands where azure-identity's credentials stand."""

    clock: TurnedClock
    lifetime_seconds: int = 3600
    opened: int = 0
    closed: int = 0
    error: Exception | None = None
    always_gives: str | None = None
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def open(self) -> "FakeIdentity":
        self.opened += 1
        return self

    def get_token(self, *scopes: str) -> SimpleNamespace:
        self.gate.wait(120)
        if self.error is not None:
            raise self.error
        token = self.always_gives or f"token-{self.opened}"
        return SimpleNamespace(token=token, expires_on=int(self.clock.seconds) + self.lifetime_seconds)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Wire:
    """The workspace's side of the transport: remembers requests, answers as told."""

    requests: list[httpx.Request] = field(default_factory=list)
    answer: Answer = lambda _: httpx.Response(200, json={})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    def replies(self, *answers: httpx.Response | Exception) -> None:
        """Answer with these, one after the other."""
        waiting = list(answers)

        def next_answer(_: httpx.Request) -> httpx.Response:
            answer = waiting.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.answer = next_answer

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


@pytest.fixture
def clock() -> TurnedClock:
    """Time that moves when told."""
    return TurnedClock()


@pytest.fixture
def identity(clock: TurnedClock) -> FakeIdentity:
    """What stands for azure-identity."""
    return FakeIdentity(clock)


@pytest.fixture
def tokens(clock: TurnedClock, identity: FakeIdentity) -> TokenSource:
    """Tokens of the fake identity."""
    return TokenSource("managed-identity", clock=clock, jitter=lambda: 1.0, open_credential=identity.open)


@pytest.fixture
def wire() -> Wire:
    """What stands for the workspace."""
    return Wire()


@pytest_asyncio.fixture
async def http(wire: Wire) -> AsyncIterator[httpx.AsyncClient]:
    """A client that ends at the wire."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(wire)) as client:
        yield client


@pytest.fixture
def address() -> WorkspaceAddress:
    """Some workspace."""
    return ADDRESS


@pytest.fixture
def connection(
    http: httpx.AsyncClient, tokens: TokenSource, clock: TurnedClock, address: WorkspaceAddress
) -> Connection:
    """A connection that ends at the wire."""
    return Connection(address, tokens, http, clock=clock)
