"""Webhooks: who is told about what, and trying one out.

Where a URL leads is judged when it is set and again with every request. A secret goes in and never
comes out. Who speaks a smaller vocabulary sees, and changes, only the events in it, and no webhook that has
none of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.domain.clock import Clock
from server.domain.errors import does_not_exist, invalid_parameter
from server.protocol import paging
from server.protocol import webhooks as messages
from server.protocol.webhook_events import EventMessage, Vocabulary, event_message, example_data
from server.store import webhooks
from server.store.webhooks import Webhook
from server.webhooks.guard import RefusedTargetError, UnresolvedTargetError
from server.webhooks.outbound import FailedRequestError, Outbound

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000


class Webhooks:
    """What can be done with webhooks, in the words of a vocabulary of events."""

    def __init__(
        self,
        *,
        database: Database,
        writer: Writer,
        clock: Clock,
        outbound: Outbound,
        vocabulary: Vocabulary,
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._outbound = outbound
        self._vocabulary = vocabulary
        self._known = frozenset(vocabulary.events)

    async def create(
        self, request: messages.CreateWebhookRequest, principal: str | None
    ) -> messages.WebhookMessage:
        """Make a webhook."""
        name = messages.check_name(request.name)
        url = await self._check_url(request.url)
        events = self._vocabulary.parse_all(request.events)
        messages.check_texts(request.description, request.secret)
        status = messages.parse_status(request.status) or messages.ACTIVE

        def apply(transaction: Transaction) -> messages.WebhookMessage:
            webhook = webhooks.insert(
                transaction,
                name=name,
                url=url,
                description=request.description or None,
                status=status,
                secret=request.secret or None,
                principal=principal,
            )
            webhooks.set_events(transaction, webhook.webhook_pk, events)
            return _message(webhook, events)

        return await self._writer.commit(Work(apply))

    async def get(self, webhook_id: str) -> messages.WebhookMessage:
        """One webhook."""
        return await self._database.read(
            lambda transaction: self._show(transaction, [self._get(transaction, webhook_id)])[0]
        )

    async def list_page(
        self, request: messages.ListWebhooksRequest
    ) -> tuple[list[messages.WebhookMessage], str | None]:
        """A page of webhooks, the newest first, and the token of the next one."""
        limit = request.max_results or _DEFAULT_PAGE
        if not 1 <= limit <= _LARGEST_PAGE:
            raise invalid_parameter(f"max_results must be between 1 and {_LARGEST_PAGE}.")
        offset = paging.decode_offset(request.page_token)

        def find(transaction: Transaction) -> tuple[list[messages.WebhookMessage], str | None]:
            found = webhooks.list_page(
                transaction, told_about=self._vocabulary.events, offset=offset, limit=limit + 1
            )
            token = paging.encode_offset(offset + limit) if len(found) > limit else None
            return self._show(transaction, found[:limit]), token

        return await self._database.read(find)

    async def update(
        self, webhook_id: str, request: messages.UpdateWebhookRequest
    ) -> messages.WebhookMessage:
        """Change what the request names; an empty secret means no signature from now on."""
        if request.name:
            messages.check_name(request.name)
        if request.url:
            await self._check_url(request.url)
        events = self._vocabulary.parse_all(request.events) if request.events else None
        messages.check_texts(request.description, request.secret)
        status = messages.parse_status(request.status)

        def apply(transaction: Transaction) -> messages.WebhookMessage:
            webhook = self._get(transaction, webhook_id)
            changed = replace(
                webhook,
                name=request.name or webhook.name,
                url=request.url or webhook.url,
                description=_given(request.description, webhook.description),
                secret=_given(request.secret, webhook.secret),
                status=status or webhook.status,
            )
            webhooks.update(transaction, changed)
            if events is not None:
                webhooks.set_events(
                    transaction, webhook.webhook_pk, [*events, *self._unknown(transaction, webhook)]
                )
            return self._show(transaction, [self._get(transaction, webhook_id)])[0]

        return await self._writer.commit(Work(apply))

    async def delete(self, webhook_id: str) -> None:
        """Delete a webhook and what waits for it."""
        await self._writer.commit(
            Work(
                lambda transaction: webhooks.delete(
                    transaction, self._get(transaction, webhook_id).webhook_pk
                )
            )
        )

    async def test(self, webhook_id: str, event: EventMessage | None) -> messages.TestResult:
        """Send an example at once, once, and tell what happened."""
        wanted = None if event is None else self._vocabulary.parse(event)

        def find(transaction: Transaction) -> tuple[Webhook, str]:
            webhook = self._get(transaction, webhook_id)
            return webhook, wanted or self._events_of(transaction, [webhook])[webhook.webhook_pk][0]

        webhook, chosen = await self._database.read(find)
        now_ms = self._clock.now_ms()
        body = messages.delivery_body(chosen, example_data(chosen), now_ms)
        headers = messages.delivery_headers(
            body, delivery_id=str(uuid4()), secret=webhook.secret, now_ms=now_ms
        )
        try:
            reply = await self._outbound.post(webhook.url, body.encode(), headers)
        except (RefusedTargetError, UnresolvedTargetError, FailedRequestError) as error:
            return messages.TestResult(success=False, error_message=f"Failed to test webhook: {error}")
        return messages.TestResult(reply.is_success, reply.status, reply.body)

    async def _check_url(self, url: str) -> str:
        messages.check_url(url)
        try:
            await self._outbound.check(url)
        except (RefusedTargetError, UnresolvedTargetError) as error:
            raise invalid_parameter(str(error)) from error
        return url

    # --- what the vocabulary shows ---

    def _get(self, transaction: Transaction, webhook_id: str) -> Webhook:
        webhook = webhooks.find(transaction, webhook_id)
        if webhook is None or not self._events_of(transaction, [webhook]):
            raise does_not_exist(f"Webhook with ID {webhook_id} not found.")
        return webhook

    def _show(self, transaction: Transaction, found: Sequence[Webhook]) -> list[messages.WebhookMessage]:
        events = self._events_of(transaction, found)
        return [_message(webhook, events[webhook.webhook_pk]) for webhook in found]

    def _events_of(self, transaction: Transaction, found: Sequence[Webhook]) -> dict[int, list[str]]:
        """The events that can be shown; a webhook that has none of them is left out."""
        events = webhooks.list_events(transaction, [webhook.webhook_pk for webhook in found])
        shown = {pk: [event for event in of_one if event in self._known] for pk, of_one in events.items()}
        return {pk: of_one for pk, of_one in shown.items() if of_one}

    def _unknown(self, transaction: Transaction, webhook: Webhook) -> list[str]:
        """The events that whoever speaks this vocabulary cannot see, and so does not take away."""
        events = webhooks.list_events(transaction, [webhook.webhook_pk])[webhook.webhook_pk]
        return [event for event in events if event not in self._known]


def _given(new: str | None, old: str | None) -> str | None:
    return old if new is None else new or None


def _message(webhook: Webhook, events: Sequence[str]) -> messages.WebhookMessage:
    return messages.WebhookMessage(
        webhook_id=webhook.webhook_id,
        name=webhook.name,
        url=webhook.url,
        events=[event_message(event) for event in events],
        status=webhook.status,
        creation_timestamp=webhook.creation_timestamp_ms,
        last_updated_timestamp=webhook.last_updated_timestamp_ms,
        description=webhook.description,
    )
