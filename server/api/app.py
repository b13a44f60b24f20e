"""The application: every route in one table, behind the door."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute

from server import __version__
from server.api.door import Authenticator, Door, SessionFinder
from server.api.endpoints import Endpoint
from server.api.openapi import describe
from server.api.reach import ExperimentLimits


def make_app(routes: Sequence[Endpoint]) -> FastAPI:
    """The application with all its routes. Interactive documentation is off; the document is served."""
    app = FastAPI(title="mlproxy", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes.extend(routes)
    app.openapi = lambda: describe(routes)  # type: ignore[method-assign]
    return app


def make_door(
    app: FastAPI,
    *,
    authenticator: Authenticator,
    allowed_hosts: frozenset[str],
    path_prefix: str = "",
    observe: Any = None,
    sessions: SessionFinder | None = None,
    limits: ExperimentLimits | None = None,
    absence: str | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Door:
    """The application as the world may reach it.

    `absence` is said of paths that it does not have. While it is stopping, connections are not kept.
    """
    routes: list[BaseRoute] = list(app.router.routes)
    return Door(
        app,
        routes=routes,
        authenticator=authenticator,
        allowed_hosts=allowed_hosts,
        path_prefix=path_prefix,
        observe=observe,
        sessions=sessions,
        limits=limits,
        absence=absence,
        is_stopping=is_stopping,
    )
