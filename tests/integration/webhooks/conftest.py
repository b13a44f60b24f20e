"""A receiver, and a server that may send to it."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.support.receiver import Receiver
from tests.support.webhooks import Bench, webhook_bench


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A host to send to."""
    with Receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture
async def bench(database_url: str, receiver: Receiver) -> AsyncIterator[Bench]:
    """A server on an empty database that may send to the receiver."""
    async with webhook_bench(database_url, receiver) as bench:
        yield bench
