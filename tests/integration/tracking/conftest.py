"""One server per kind of database for all tests of the tracking API; each makes its own runs."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.databases import Databases
from tests.support.tracking import Bench, Tracking, bench_server, tracking_server


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["sqlite", "postgres"])
async def tracking(
    request: pytest.FixtureRequest,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Tracking]:
    """A whole server with access control off."""
    url = databases.make(request.param, stays=True)
    async with tracking_server(url, tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """The tracking routes on an empty database, over a writer that can be held."""
    async with bench_server(database_url) as made:
        yield made
