"""Webhooks, from the request to what a receiver gets."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.commit.writer import Work
from server.domain.access import Role
from server.domain.backoff import Backoff
from server.store import webhooks as store
from server.webhooks.sender import SenderSettings
from tests.support.interpreters import client_python, run_client
from tests.support.receiver import Receiver
from tests.support.server import ServerProcess
from tests.support.webhooks import SECRET, Bench

PROMPT = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]


# --- webhooks themselves --------------------------------------------------------------------


@pytest.mark.asyncio
async def test_life_of_a_webhook(bench: Bench) -> None:
    """A webhook is made, read, listed, changed and deleted, and its secret is never shown."""
    made = await bench.listen("/x", "prompt.created", "registered_model.created", secret=SECRET)
    assert made["events"] == [
        {"entity": "PROMPT", "action": "CREATED"},
        {"entity": "REGISTERED_MODEL", "action": "CREATED"},
    ]
    assert made["status"] == "ACTIVE"
    assert "secret" not in made
    path = f"webhooks/{made['webhook_id']}"
    assert (await bench.call("GET", path))["webhook"] == made
    second = await bench.listen("/y", description="d", status="DISABLED")
    page = await bench.call("GET", "webhooks", max_results=1)
    assert [item["webhook_id"] for item in page["webhooks"]] == [second["webhook_id"]]
    page = await bench.call("GET", "webhooks", max_results=1, page_token=page["next_page_token"])
    assert page == {"webhooks": [made]}
    events = [{"entity": "PROMPT_TAG", "action": "SET"}]
    changed = (await bench.call("PATCH", path, name="new", events=events, status="DISABLED"))["webhook"]
    assert (changed["name"], changed["events"], changed["status"]) == ("new", events, "DISABLED")
    assert changed["url"] == made["url"]
    assert await bench.call("DELETE", path) == {}
    for method, other in (("GET", path), ("PATCH", path), ("DELETE", path), ("POST", f"{path}/test")):
        await bench.call(method, other, fails="RESOURCE_DOES_NOT_EXIST")


@pytest.mark.asyncio
async def test_webhooks_that_are_refused(bench: Bench) -> None:
    """A webhook needs a name, events that exist, and a URL that leads to no place inside."""
    event = {"entity": "PROMPT", "action": "CREATED"}
    good: dict[str, Any] = {"name": "hook", "url": f"{bench.receiver.url}/x", "events": [event]}
    wrong: list[dict[str, Any]] = [
        {"name": ""},
        {"name": "a b"},
        {"url": ""},
        {"url": "https://127.0.0.1:1/"},
        {"url": "http://169.254.169.254/metadata/identity/oauth2/token"},
        {"url": "https://168.63.129.16/"},
        {"url": "https://localhost/"},
        {"url": "https://2130706433/"},
        {"url": "https://host.invalid/"},
        {"url": "ftp://example.com/"},
        {"url": "https://a:b@example.com/"},
        {"events": []},
        {"events": [{"entity": "PROMPT", "action": "DELETED"}]},
        {"events": [{"entity": "RUN", "action": "CREATED"}]},
        {"status": "SLEEPING"},
        {"secret": "line\nbreak"},
        {"description": "d" * 1001},
    ]
    made = (await bench.call("POST", "webhooks", **good))["webhook"]
    for fields in wrong:
        await bench.call("POST", "webhooks", fails="INVALID_PARAMETER_VALUE", **{**good, **fields})
    path = f"webhooks/{made['webhook_id']}"
    for fields in wrong:
        if all(fields.values()):
            await bench.call("PATCH", path, fails="INVALID_PARAMETER_VALUE", **fields)
    assert (await bench.call("GET", path))["webhook"] == made
    for size in (-1, 1001):
        await bench.call("GET", "webhooks", max_results=size, fails="INVALID_PARAMETER_VALUE")
    assert bench.receiver.received == []


@pytest.mark.asyncio
async def test_webhooks_are_for_administrators(bench: Bench) -> None:
    """Who may only write can neither see webhooks nor make any."""
    await bench.listen("/x")
    bench.caller.role = Role.WRITE
    await bench.call("GET", "webhooks", fails="PERMISSION_DENIED")
    await bench.call("POST", "webhooks", name="x", fails="PERMISSION_DENIED")


@pytest.mark.asyncio
async def test_trying_a_webhook(bench: Bench) -> None:
    """A test sends an example at once and tells the status, the body, or why nothing was sent."""
    made = await bench.listen("/x", "prompt_alias.deleted", "model_version.created", secret=SECRET)
    path = f"webhooks/{made['webhook_id']}"
    assert (await bench.call("POST", f"{path}/test"))["result"] == {
        "success": True,
        "response_status": 200,
        "response_body": "ok",
    }
    event = {"entity": "MODEL_VERSION", "action": "CREATED"}
    await bench.call("POST", f"{path}/test", event=event)
    first, second = bench.receiver.received
    assert first.event == "prompt_alias.deleted"
    assert first.message["data"] == {"name": "example_prompt", "alias": "example_alias"}
    assert second.event == "model_version.created"
    assert first.is_signed_with(SECRET)
    assert first.delivery_id != second.delivery_id

    await bench.call("PATCH", path, url=f"{bench.receiver.url}/refuse")
    result = (await bench.call("POST", f"{path}/test"))["result"]
    assert result == {"success": False, "response_status": 403, "response_body": "no"}
    await bench.writer.commit(
        Work(lambda transaction: transaction.run("UPDATE webhooks SET url = 'https://127.0.0.1:1/'"))
    )
    result = (await bench.call("POST", f"{path}/test"))["result"]
    assert result["success"] is False
    assert "non-public" in result["error_message"]
    assert await bench.waiting() == 0


# --- deliveries -----------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_every_event(bench: Bench) -> None:
    """Each change of the registry that MLflow has an event for arrives once, signed, with its data."""
    events = [
        *("registered_model.created", "model_version.created", "model_version_tag.set"),
        *("model_version_tag.deleted", "model_version_alias.created", "model_version_alias.deleted"),
        *("prompt.created", "prompt_version.created", "prompt_tag.set", "prompt_tag.deleted"),
        *("prompt_version_tag.set", "prompt_version_tag.deleted"),
        *("prompt_alias.created", "prompt_alias.deleted"),
    ]
    await bench.listen("/all", *events, secret=SECRET)
    text = {"key": "mlflow.prompt.text", "value": "Hi"}
    kind = {"key": "_mlflow_prompt_type", "value": "text"}
    tag = {"key": "k", "value": "v"}
    async with bench.sending():
        await bench.make_model("m", tags=[tag], description="d")
        await bench.make_model("p", tags=[*PROMPT, tag])
        source = "s3://bucket/model"
        await bench.call("POST", "model-versions/create", name="m", source=source, tags=[tag])
        tags = [*PROMPT, text, kind, tag]
        await bench.call("POST", "model-versions/create", name="p", source="dummy-source", tags=tags)
        for name in ("m", "p"):
            await bench.call("POST", "registered-models/set-tag", name=name, key="a", value="b")
            await bench.call("DELETE", "registered-models/delete-tag", name=name, key="a")
            await bench.call("POST", "model-versions/set-tag", name=name, version="1", key="a", value="b")
            await bench.call("DELETE", "model-versions/delete-tag", name=name, version="1", key="a")
            await bench.call("POST", "registered-models/alias", name=name, alias="x", version="1")
            await bench.call("DELETE", "registered-models/alias", name=name, alias="x")
        received = await bench.wait_for(len(events))
        await bench.wait_until_empty()
    assert {request.event: request.message["data"] for request in received} == {
        "registered_model.created": {"name": "m", "tags": {"k": "v"}, "description": "d"},
        "model_version.created": {
            "name": "m",
            "version": "1",
            "source": source,
            "run_id": None,
            "tags": {"k": "v"},
            "description": None,
        },
        "model_version_tag.set": {"name": "m", "version": "1", "key": "a", "value": "b"},
        "model_version_tag.deleted": {"name": "m", "version": "1", "key": "a"},
        "model_version_alias.created": {"name": "m", "alias": "x", "version": "1"},
        "model_version_alias.deleted": {"name": "m", "alias": "x"},
        "prompt.created": {"name": "p", "tags": {"k": "v"}, "description": ""},
        "prompt_version.created": {
            "name": "p",
            "version": "1",
            "template": "Hi",
            "tags": {"k": "v"},
            "description": None,
        },
        "prompt_tag.set": {"name": "p", "key": "a", "value": "b"},
        "prompt_tag.deleted": {"name": "p", "key": "a"},
        "prompt_version_tag.set": {"name": "p", "version": "1", "key": "a", "value": "b"},
        "prompt_version_tag.deleted": {"name": "p", "version": "1", "key": "a"},
        "prompt_alias.created": {"name": "p", "alias": "x", "version": "1"},
        "prompt_alias.deleted": {"name": "p", "alias": "x"},
    }
    assert all(request.is_signed_with(SECRET) for request in received)
    assert len(received) == len({request.delivery_id for request in received}) == len(events)


@pytest.mark.asyncio
async def test_only_what_is_committed_and_asked_for(bench: Bench) -> None:
    """A write that fails tells nobody, and neither does one whose event nobody wants."""
    await bench.make_model("before")
    await bench.listen("/on")
    await bench.listen("/off", status="DISABLED")
    await bench.listen("/other", "prompt.created")
    await bench.make_model("before", fails="RESOURCE_ALREADY_EXISTS")
    assert await bench.waiting() == 0
    await bench.make_model("after")
    assert await bench.waiting() == 1


@pytest.mark.asyncio
async def test_nothing_for_who_does_not_want_it_any_more(bench: Bench) -> None:
    """What waits for a webhook that is disabled or deleted in the meantime is dropped."""
    disabled = await bench.listen("/disabled")
    deleted = await bench.listen("/deleted")
    await bench.make_model("m")
    assert await bench.waiting() == 2
    await bench.call("DELETE", f"webhooks/{deleted['webhook_id']}")
    assert await bench.waiting() == 1
    await bench.call("PATCH", f"webhooks/{disabled['webhook_id']}", status="DISABLED")
    async with bench.sending():
        await bench.wait_until_empty()
    assert bench.receiver.received == []


@pytest.mark.asyncio
async def test_a_failure_is_tried_again(bench: Bench) -> None:
    """A receiver that fails twice gets the same delivery a third time, signed anew."""
    await bench.listen("/flaky/2", secret=SECRET)
    async with bench.sending():
        await bench.make_model("m")
        received = await bench.wait_for(3)
        await bench.wait_until_empty()
    assert len({(request.delivery_id, request.body) for request in received}) == 1
    assert all(request.is_signed_with(SECRET) for request in received)
    assert len(bench.receiver.received) == 3


@pytest.mark.parametrize(("path", "attempts"), [("/down", 4), ("/refuse", 1), ("/redirect", 1)])
@pytest.mark.asyncio
async def test_what_is_given_up(bench: Bench, path: str, attempts: int) -> None:
    """A receiver that stays down is tried so many times; a refusal and a redirect are final."""
    await bench.listen(path)
    async with bench.sending():
        await bench.make_model("m")
        await bench.wait_until_empty()
    assert [request.path for request in bench.receiver.received] == [path] * attempts


@pytest.mark.asyncio
async def test_a_restart(bench: Bench) -> None:
    """What waits, and what was broken off, is sent by the next life of the server."""
    await bench.listen("/slow")
    await bench.make_model("one")
    never = SenderSettings(backoff=Backoff(timedelta(hours=1), timedelta(hours=1)))
    await bench.listen("/flaky/1", "prompt.created")
    await bench.make_model("two", tags=PROMPT)
    async with bench.sending(never):
        await bench.wait_for(1, "/flaky/1")
        await bench.wait_for(1, "/slow")
    assert await bench.waiting() == 1
    await bench.writer.commit(
        Work(lambda transaction: transaction.run("UPDATE webhook_deliveries SET not_before_ms = 0"))
    )
    async with bench.sending():
        await bench.wait_until_empty()
    assert len(bench.receiver.at("/slow")) == 1
    first, second = bench.receiver.at("/flaky/1")
    assert first.delivery_id == second.delivery_id


@pytest.mark.asyncio
async def test_one_claim_at_a_time(bench: Bench) -> None:
    """A delivery that one process has claimed is not claimed by another until the claim runs out."""
    await bench.listen("/x")
    await bench.make_model("m")
    due = await bench.database.read(
        lambda transaction: store.list_due(transaction, now_ms=2**60, per_webhook=9, limit=9)
    )
    ((delivery_pk, _, not_before_ms),) = due
    for expected in (1, None):
        claimed = await bench.writer.commit(
            Work(
                lambda transaction: store.claim(
                    transaction, delivery_pk, not_before_ms=not_before_ms, until_ms=not_before_ms + 5
                )
            )
        )
        assert (claimed and claimed.attempts) == expected
    await bench.writer.commit(Work(lambda transaction: store.give_back(transaction, [delivery_pk])))
    async with bench.sending():
        await bench.wait_until_empty()
    assert len(bench.receiver.received) == 1


@pytest.mark.asyncio
async def test_a_slow_receiver_takes_few_connections(bench: Bench) -> None:
    """Of one webhook only two deliveries are on their way at a time, and others get theirs meanwhile."""
    await bench.listen("/slow")
    for number in range(6):
        await bench.make_model(f"m{number}")
    await bench.listen("/quick", "prompt.created")
    await bench.make_model("p", tags=PROMPT)
    async with bench.sending():
        await bench.wait_until_empty()
    arrived = [request.path for request in bench.receiver.received]
    assert arrived.index("/quick") < len(arrived) - 1
    assert bench.receiver.most_at_once <= 3
    assert len(bench.receiver.at("/slow")) == 6


@pytest.mark.asyncio
async def test_an_address_that_turned_bad(bench: Bench) -> None:
    """What leads inside by now is given up without a connection."""
    await bench.listen("/x")
    await bench.make_model("m")
    other = f"https://localhost:{bench.receiver.port}/x"
    await bench.writer.commit(
        Work(lambda transaction: transaction.run("UPDATE webhooks SET url = ?", (other,)))
    )
    async with bench.sending():
        await bench.wait_until_empty()
    assert bench.receiver.received == []


@pytest.mark.asyncio
async def test_a_full_outbox(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the most a webhook may have waiting its events are dropped; writes go on."""
    monkeypatch.setattr(store, "MOST_WAITING", 2)
    await bench.listen("/x")
    for number in range(4):
        await bench.make_model(f"m{number}")
    assert await bench.waiting() == 2


# --- the whole server -----------------------------------------------------------------------


def test_stock_client(database_url: str, receiver: Receiver, tmp_path: Path) -> None:
    """MLflow's own client manages webhooks, prompts and models, and the receiver hears of all of it."""
    python = client_python("mlflow3")
    environment = {
        "MLPROXY_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{receiver.port}",
        "MLPROXY_DATABASE_URL": database_url if database_url.startswith("postgres") else None,
    }
    with ServerProcess.start(tmp_path / "data", **environment) as server:
        run_client(python, "prompts_and_webhooks.py", server.url, receiver.url, folder=tmp_path / "client")
        wanted = {
            *("registered_model.created", "model_version.created", "model_version_tag.set"),
            *("model_version_tag.deleted", "model_version_alias.created", "model_version_alias.deleted"),
            *("prompt.created", "prompt_version.created", "prompt_tag.set", "prompt_tag.deleted"),
            *("prompt_version_tag.set", "prompt_version_tag.deleted"),
            *("prompt_alias.created", "prompt_alias.deleted"),
        }
        received = receiver.wait_for_events(wanted, "/all")
        assert {request.event for request in received} == wanted
        assert all(request.is_signed_with("s3cret") for request in received)


def test_a_server_that_is_killed(database_url: str, receiver: Receiver, tmp_path: Path) -> None:
    """What was committed by a server that never sent anything is sent by the next one."""
    environment = {
        "MLPROXY_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
        "MLPROXY_DATABASE_URL": database_url if database_url.startswith("postgres") else None,
        "MLPROXY_ROLE": "api",
    }
    with ServerProcess.start(tmp_path, **environment) as server, httpx.Client(trust_env=False) as http:
        base = f"{server.url}/api/2.0/mlflow"
        event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
        fields = {"name": "hook", "url": f"{receiver.url}/flaky/1", "events": [event], "secret": SECRET}
        assert http.post(f"{base}/webhooks", json=fields).status_code == 200
        assert http.post(f"{base}/registered-models/create", json={"name": "m"}).status_code == 200
        server.kill()
        assert receiver.received == []
        server.restart(MLPROXY_ROLE="all")
        first, second = receiver.wait_for(2)
        assert first.delivery_id == second.delivery_id
        assert second.is_signed_with(SECRET)
        assert SECRET not in server.log_file.read_text()
