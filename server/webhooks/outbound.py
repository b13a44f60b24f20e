"""One request to a webhook: to an address that was judged, without redirects, within a time."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx

from server import __version__
from server.upstream.channel import trusted_ca_file
from server.webhooks.guard import Guard, Target

REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_MOST_ADDRESSES = 3
_MOST_BODY_BYTES = 16 * 1024
_USER_AGENT = f"mlflow-azureml-proxy/{__version__}"


class FailedRequestError(Exception):
    """No answer came."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its body cut to what is worth showing."""

    status: int
    body: str
    retry_after_seconds: float | None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken it. A redirect is followed by nobody, so it has not."""
        return 200 <= self.status < 300


class Outbound:
    """Sends to webhooks. Connections are used once: an address may belong to many hosts."""

    def __init__(self, *, guard: Guard) -> None:
        self._guard = guard
        self._client: httpx.AsyncClient | None = None

    async def check(self, url: str) -> None:
        """Judge a URL without sending anything.

        Raises:
            RefusedTargetError: no request may go there.
            UnresolvedTargetError: its host has no address.
        """
        await self._guard.find_addresses(self._guard.parse(url))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send, and read the answer.

        Raises:
            RefusedTargetError: no request may go there.
            UnresolvedTargetError: its host has no address.
            FailedRequestError: no answer came.
        """
        target = self._guard.parse(url)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                addresses = await self._guard.find_addresses(target)
                return await self._post_to_one(target, addresses[:_MOST_ADDRESSES], body, headers)
        except TimeoutError as error:
            raise FailedRequestError(f"no answer within {REQUEST_SECONDS:.0f} seconds") from error
        except httpx.HTTPError as error:
            raise FailedRequestError(f"{type(error).__name__}: {error}"[:500]) from error

    async def _post_to_one(
        self, target: Target, addresses: list[str], body: bytes, headers: Mapping[str, str]
    ) -> Reply:
        """Send to the first address that can be connected to."""
        for address in addresses[:-1]:
            try:
                return await self._post(target, address, body, headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._post(target, addresses[-1], body, headers)

    async def _post(self, target: Target, address: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        extensions = {} if _is_address(target.host) else {"sni_hostname": target.host}
        client = self._http()
        request = client.build_request(
            "POST",
            target.url.copy_with(host=address),
            content=body,
            headers={
                **headers,
                "Host": target.url.netloc.decode("ascii"),
                "User-Agent": _USER_AGENT,
                # A compressed answer could be far larger than it looks.
                "Accept-Encoding": "identity",
            },
            extensions=extensions,
        )
        response = await client.send(request, stream=True)
        try:
            shown = await _read_some(response)
        finally:
            await response.aclose()
        return Reply(
            response.status_code, shown.decode(errors="replace").replace("\0", ""), _retry_after(response)
        )

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(REQUEST_SECONDS, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(max_keepalive_connections=0),
                verify=_trust(),
                # A proxy would be judged in place of the host, and then resolve the name again.
                trust_env=False,
            )
        return self._client

    async def aclose(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()


async def _read_some(response: httpx.Response) -> bytes:
    read = b""
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) >= _MOST_BODY_BYTES:
            break
    return read[:_MOST_BODY_BYTES]


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _trust() -> ssl.SSLContext:
    trusted = trusted_ca_file()
    if trusted is None:
        return httpx.create_ssl_context(trust_env=False)
    if Path(trusted).is_dir():
        return ssl.create_default_context(capath=trusted)
    return ssl.create_default_context(cafile=trusted)
