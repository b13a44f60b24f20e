"""The one way to a workspace: its address, our token, the shared HTTP client."""

from collections.abc import Mapping
from typing import Any

import httpx

from server.domain.clock import Clock
from server.upstream.channel import LONGEST_CALL_SECONDS, Admission, Channel, Observe
from server.upstream.credentials import TokenSource
from server.upstream.workspace import WorkspaceAddress


class Connection:
    """Calls to one workspace. Every noun of this package is built on one."""

    def __init__(
        self,
        address: WorkspaceAddress,
        tokens: TokenSource,
        http: httpx.AsyncClient,
        *,
        clock: Clock | None = None,
        observe: Observe | None = None,
        patience_seconds: float = LONGEST_CALL_SECONDS,
        admission: Admission | None = None,
    ) -> None:
        self.address = address
        self.http = http
        self._channel = Channel(
            origin=address.host_url,
            tokens=tokens,
            http=http,
            clock=clock,
            observe=observe,
            patience_seconds=patience_seconds,
            admission=admission,
        )

    async def mlflow(
        self,
        method: str,
        route: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        is_repeatable: bool | None = None,
    ) -> Any:
        """The answer of one of the workspace's MLflow calls; `route` as in `runs/create`."""
        url = f"{self.address.mlflow_url}/{route}"
        return await self._channel.request(
            method, url, params=params, json=json, route=route, is_repeatable=is_repeatable
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        content_type: str | None = None,
        route: str = "",
        is_repeatable: bool | None = None,
        expects_answer: bool = True,
    ) -> Any:
        """The decoded JSON answer of any call on the workspace's host, or `UpstreamFailure`."""
        return await self._channel.request(
            method,
            url,
            params=params,
            json=json,
            content_type=content_type,
            route=route,
            is_repeatable=is_repeatable,
            expects_answer=expects_answer,
        )
