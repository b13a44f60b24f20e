"""A server on each kind of database that has nowhere to deliver to, and a way to park what it holds."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.parked.scene import Scene
from tests.support.tracking import Tracking, tracking_server


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["sqlite", "postgres"])
async def server(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Tracking]:
    """The module's server."""
    url = make_database(request.param)
    async with tracking_server(url, tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def scene(server: Tracking) -> Any:
    """A run, its experiment and a model, with nothing on their way and nothing parked before."""
    made = await Scene.open(server)
    await made.settle_everything()
    await made.drop_everything()
    return made
