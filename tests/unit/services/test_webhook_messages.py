"""What is sent to a webhook, and which events there are."""

import json

import pytest

from server.domain.errors import MlflowError
from server.protocol import webhooks as messages
from server.protocol.webhook_events import ALL_EVENTS, MLFLOW_EVENTS, EventMessage, example_data


def test_signature() -> None:
    """The signature is HMAC-SHA256 over id, time and body, as MLflow's documentation verifies it."""
    headers = messages.delivery_headers(
        '{"a": 1}', delivery_id="id-1", secret="s3cret", now_ms=1_700_000_000_999
    )
    assert headers["X-MLflow-Timestamp"] == "1700000000"
    assert headers["X-MLflow-Delivery-Id"] == "id-1"
    # echo -n 'id-1.1700000000.{"a": 1}' | openssl dgst -sha256 -hmac s3cret -binary | base64
    assert headers["X-MLflow-Signature"] == "v1,YW5PRvKTy+IERaaAfKQzg15qWC7EzIzNmMWjrKRbRvY="


def test_no_secret_no_signature() -> None:
    """Without a secret there is no signature at all."""
    headers = messages.delivery_headers("{}", delivery_id="x", secret=None, now_ms=0)
    assert "X-MLflow-Signature" not in headers


def test_body() -> None:
    """The body names the event, its time in UTC and its data."""
    body = json.loads(messages.delivery_body("prompt_tag.set", {"name": "ä"}, 1_700_000_000_123))
    assert body == {
        "entity": "prompt_tag",
        "action": "set",
        "timestamp": "2023-11-14T22:13:20.123000+00:00",
        "data": {"name": "ä"},
    }


@pytest.mark.parametrize(
    ("entity", "action", "event"),
    [("REGISTERED_MODEL", "CREATED", "registered_model.created"), (9, 3, "prompt_alias.deleted")],
)
def test_events_by_name_and_number(entity: str | int, action: str | int, event: str) -> None:
    """Both parts of an event may be given as protobuf's name or number."""
    assert MLFLOW_EVENTS.parse(EventMessage(entity, action)) == event
    assert ALL_EVENTS.parse(EventMessage(entity, action)) == event


def test_every_event_has_an_example() -> None:
    """Whatever a webhook may be told about can be tried out."""
    assert set(MLFLOW_EVENTS.events) < set(ALL_EVENTS.events)
    assert all(example_data(event) for event in ALL_EVENTS.events)


@pytest.mark.parametrize(
    ("entity", "action"),
    [
        ("REGISTERED_MODEL", "DELETED"),
        ("REGISTERED_MODEL", "ACTION_UNSPECIFIED"),
        ("registered_model", "created"),
        ("RUN", "CREATED"),
        (0, 0),
        (99, 1),
        (1, -1),
        ("", ""),
    ],
)
def test_events_that_do_not_exist(entity: str | int, action: str | int) -> None:
    """An entity, action or pair that MLflow does not have is refused."""
    with pytest.raises(MlflowError) as refused:
        MLFLOW_EVENTS.parse(EventMessage(entity, action))
    assert refused.value.code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a-", "a" * 64, "a\n", "ä"])
def test_names_refused(name: str) -> None:
    """A webhook's name is short and plain."""
    with pytest.raises(MlflowError):
        messages.check_name(name)
