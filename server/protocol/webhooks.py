"""Wire messages about webhooks, and the form of what is sent to one.

Headers, signature and bodies are MLflow's, so that a receiver written for it works unchanged.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from server.domain.errors import invalid_parameter
from server.protocol import limits
from server.protocol.webhook_events import EventMessage
from server.protocol.wire import Request

DELIVERY_ID_HEADER = "X-MLflow-Delivery-Id"
TIMESTAMP_HEADER = "X-MLflow-Timestamp"
SIGNATURE_HEADER = "X-MLflow-Signature"
ACTIVE = "ACTIVE"
_SIGNATURE_VERSION = "v1"
_STATUSES = (ACTIVE, "DISABLED")
_NAME = re.compile(r"(?=.{1,63}\Z)[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
_URL_LENGTH = 2000
_DESCRIPTION_LENGTH = 1000
_SECRET_LENGTH = 1000


class CreateWebhookRequest(Request):
    """Make a webhook."""

    name: str = ""
    url: str = ""
    events: list[EventMessage] = []
    description: str | None = None
    secret: str | None = None
    status: str | int | None = None


class UpdateWebhookRequest(Request):
    """Change a webhook; what is absent stays."""

    name: str | None = None
    url: str | None = None
    events: list[EventMessage] = []
    description: str | None = None
    secret: str | None = None
    status: str | int | None = None


class ListWebhooksRequest(Request):
    """List webhooks."""

    max_results: int | None = None
    page_token: str | None = None


class TestWebhookRequest(Request):
    """Try a webhook with an example of one of its events."""

    event: EventMessage | None = None


class WebhookMessage(msgspec.Struct, omit_defaults=True):
    """A webhook in an answer, always without its secret."""

    webhook_id: str
    name: str
    url: str
    events: list[EventMessage]
    status: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None


class WebhookAnswer(msgspec.Struct):
    """One webhook."""

    webhook: WebhookMessage


class WebhooksAnswer(msgspec.Struct, omit_defaults=True):
    """A page of webhooks."""

    webhooks: list[WebhookMessage] = []
    next_page_token: str | None = None


class TestResult(msgspec.Struct, omit_defaults=True):
    """What happened when a webhook was tried."""

    success: bool | None = None
    response_status: int | None = None
    response_body: str | None = None
    error_message: str | None = None


class TestWebhookAnswer(msgspec.Struct):
    """The result of a try."""

    result: TestResult


# --- requests -------------------------------------------------------------------------------


def check_name(name: str) -> str:
    """A webhook's name."""
    if not _NAME.fullmatch(name):
        raise invalid_parameter(
            f"Webhook name {name!r} is invalid. It must start and end with a letter or digit, "
            "be less than 63 characters long, and contain only letters, digits, dots (.), "
            "underscores (_), and hyphens (-)."
        )
    return name


def check_url(url: str) -> str:
    """A webhook's URL, as text; where it leads is for the guard to judge."""
    if not url.strip():
        raise invalid_parameter(f"Webhook URL cannot be empty or just whitespace: {url!r}")
    limits.check_length("url", _URL_LENGTH, url)
    limits.check_text("url", url)
    return url


def check_texts(description: str | None, secret: str | None) -> None:
    """A webhook's description and secret."""
    limits.check_length("description", _DESCRIPTION_LENGTH, description)
    limits.check_text("description", description or "")
    limits.check_length("secret", _SECRET_LENGTH, secret)
    if secret and not (secret.isprintable() and _is_encodable(secret)):
        raise invalid_parameter("The webhook's secret holds characters that cannot be used.")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_status(status: str | int | None) -> str | None:
    """`ACTIVE` or `DISABLED`; None when absent."""
    if status is None:
        return None
    name = _STATUSES[status - 1] if isinstance(status, int) and 0 < status <= len(_STATUSES) else status
    if name not in _STATUSES:
        raise invalid_parameter(f"Invalid webhook status {status!r}. Valid values are {list(_STATUSES)}.")
    return str(name)


# --- deliveries -----------------------------------------------------------------------------


def delivery_body(event: str, data: Mapping[str, Any], now_ms: int) -> str:
    """What is sent to a webhook, as text."""
    entity, _, action = event.partition(".")
    happened = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
    return json.dumps({"entity": entity, "action": action, "timestamp": happened, "data": data})


def delivery_headers(body: str, *, delivery_id: str, secret: str | None, now_ms: int) -> dict[str, str]:
    """The headers of one attempt. Receivers tell a stale or repeated one by its time and id."""
    timestamp = str(now_ms // 1000)
    headers = {
        "Content-Type": "application/json",
        DELIVERY_ID_HEADER: delivery_id,
        TIMESTAMP_HEADER: timestamp,
    }
    if secret:
        signed = f"{delivery_id}.{timestamp}.{body}".encode()
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        headers[SIGNATURE_HEADER] = f"{_SIGNATURE_VERSION},{base64.b64encode(digest).decode()}"
    return headers
