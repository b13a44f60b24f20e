"""What the tests on a database share."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from server.database.schema import metadata


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a database that has all the tables and no rows."""
    engine = create_engine(database_url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()
