"""One server with two teams on it, per kind of database."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.bootstrap import build
from server.settings import AuthKind, Settings
from tests.integration.access.team import (
    MINE,
    OWN_MODEL,
    PATTERNS,
    THEIR_MODEL,
    THEIRS,
    Team,
    make_key,
    make_side,
)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def team(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Team]:
    """A whole server that wants keys."""
    folder: Path = tmp_path_factory.mktemp("team")
    settings = Settings(data_dir=folder, auth=AuthKind.KEYS, database_url=make_database(request.param))
    with asyncio.Runner() as runner:
        server = runner.run(build(settings))
        try:
            mine = make_side(server, runner, MINE, OWN_MODEL)
            theirs = make_side(server, runner, THEIRS, THEIR_MODEL)
            key = make_key(server, runner, "limited", role="write", experiments=PATTERNS)
            yield Team(server, runner, key, mine, theirs)
        finally:
            runner.run(server.stop())
