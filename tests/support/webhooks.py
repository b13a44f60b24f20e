"""Webhooks in-process: a server without a socket, a real receiver, and the outbox between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx

from server.api.app import make_app, make_door
from server.api.endpoints import MLFLOW_2, OWN
from server.api.experiments import ExperimentRoutes
from server.api.registry import RegistryRoutes
from server.api.runs import RunRoutes
from server.api.webhooks import WebhookRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.schema import metadata
from server.domain.access import Principal, Role
from server.domain.backoff import Backoff
from server.domain.clock import SystemClock
from server.protocol.webhook_events import ALL_EVENTS, MLFLOW_EVENTS, Vocabulary
from server.services.experiments import Experiments, add_default_experiment
from server.services.registry import Registry
from server.services.runs import Runs
from server.services.studio import StudioLinks
from server.services.webhooks import Webhooks
from server.webhooks.guard import Guard
from server.webhooks.outbound import Outbound
from server.webhooks.sender import Sender, SenderSettings
from tests.support.receiver import Received, Receiver
from tests.support.tracking import FROM_NOWHERE, resends_over

QUICK = SenderSettings(attempts=4, backoff=Backoff(timedelta(milliseconds=20), timedelta(milliseconds=50)))
SECRET = "a secret that nobody may see"
MLFLOW = "mlflow"
OURS = "mlproxy"


class _Caller:
    role = Role.ADMIN

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        return Principal("ann", self.role)


@dataclass
class Bench:
    """A server without a socket, and the receiver its webhooks lead to."""

    database: Database
    writer: Writer
    http: httpx.AsyncClient
    receiver: Receiver
    outbound: Outbound
    caller: _Caller

    async def call(
        self, method: str, path: str, *, api: str = MLFLOW, fails: str | None = None, **fields: Any
    ) -> Any:
        """The answer to one request, which must succeed, or fail with that error code."""
        url = f"http://localhost/api/2.0/{api}/{path}"
        sent = {"params": fields} if method == "GET" else {"json": fields}
        answer = await self.http.request(method, url, **sent)
        assert SECRET not in answer.text
        if fails is None:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code >= 400, answer.text
            assert answer.json()["error_code"] == fails, answer.text
        return answer.json()

    async def listen(self, path: str, *events: str, api: str = MLFLOW, **fields: Any) -> dict[str, Any]:
        """A new webhook that leads to a path of the receiver."""
        parts = [event.upper().split(".") for event in events or ("registered_model.created",)]
        shown = [{"entity": entity, "action": action} for entity, action in parts]
        url = f"{self.receiver.url}{path}"
        answer = await self.call("POST", "webhooks", api=api, name="hook", url=url, events=shown, **fields)
        return answer["webhook"]

    async def make_model(self, name: str, **fields: Any) -> None:
        await self.call("POST", "registered-models/create", name=name, **fields)

    async def waiting(self) -> int:
        """How many deliveries are in the outbox."""
        return await self.database.read(
            lambda transaction: transaction.rows("SELECT COUNT(*) FROM webhook_deliveries")[0][0]
        )

    async def wait_until_empty(self) -> None:
        for _ in range(2400):
            if not await self.waiting():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the outbox is not empty")

    async def wait_for(self, count: int, path: str | None = None) -> list[Received]:
        return await asyncio.to_thread(self.receiver.wait_for, count, path)

    @asynccontextmanager
    async def sending(self, settings: SenderSettings = QUICK) -> AsyncIterator[Sender]:
        """With a sender at work."""
        sender = Sender(
            database=self.database,
            writer=self.writer,
            clock=SystemClock(),
            outbound=self.outbound,
            settings=settings,
        )
        sender.start()
        try:
            yield sender
        finally:
            await sender.stop()


@asynccontextmanager
async def webhook_bench(database_url: str, receiver: Receiver) -> AsyncIterator[Bench]:
    """A server on an empty database that may send to the receiver."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    writer = Writer(database=database, clock=SystemClock())
    writer.start()
    await writer.commit(Work(add_default_experiment))
    outbound = Outbound(guard=Guard(listed=frozenset({f"127.0.0.1:{receiver.port}"})))

    def webhooks(vocabulary: Vocabulary) -> Webhooks:
        return Webhooks(
            database=database, writer=writer, clock=SystemClock(), outbound=outbound, vocabulary=vocabulary
        )

    caller = _Caller()
    parts = {"database": database, "writer": writer, "resends": resends_over(database, writer)}
    runs = Runs(**parts)
    routes = [
        *ExperimentRoutes(Experiments(**parts)).routes(),
        *RunRoutes(runs, StudioLinks(database=database, url_of=None)).routes(),
        *RegistryRoutes(Registry(**parts)).routes(),
        *WebhookRoutes(webhooks(MLFLOW_EVENTS), prefixes=MLFLOW_2).routes(),
        *WebhookRoutes(webhooks(ALL_EVENTS), prefixes=OWN).routes(),
    ]
    door = make_door(make_app(routes), authenticator=caller, allowed_hosts=frozenset({"localhost"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door, client=FROM_NOWHERE)) as http:
        yield Bench(database, writer, http, receiver, outbound, caller)
    await outbound.aclose()
    await writer.stop()
    database.close()
