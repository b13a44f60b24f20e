"""Where a webhook may lead.

A client chooses the URL, and the server sends from inside the network, next to services that trust
it for that: on Azure the metadata service hands out the server's own identity. So a host is resolved
here, every address it has must be one of the public internet, and the request goes to an address
that was judged, never to the name again.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

_RESOLVE_SECONDS = 5.0
_RESOLVING_THREADS = 4
_LARGEST_PORT = 65_535
# Azure's platform address: DHCP, DNS and the virtual machine agent. It passes for a public one.
_AZURE_PLATFORM = IPv4Address("168.63.129.16")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_BROADCAST = IPv4Address("255.255.255.255")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_TUNNELS = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]


class RefusedTargetError(Exception):
    """A URL no request may go to; the message is for the client."""


class UnresolvedTargetError(Exception):
    """The host has no address now; it may have one later."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart. A listed host may be private and be reached over plain http."""

    url: httpx.URL
    host: str
    port: int
    is_listed: bool


class HostResolver:
    """Asks the system, on threads of its own: a name server that hangs holds up nobody else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVING_THREADS, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a host.

        Raises:
            UnresolvedTargetError: it has none, or the answer takes too long.
        """
        loop = asyncio.get_running_loop()
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await loop.run_in_executor(self._threads, ask)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise UnresolvedTargetError(f"Cannot resolve Webhook URL hostname '{host}'.") from error
        return list(dict.fromkeys(str(info[4][0]) for info in found))


class Guard:
    """Judges URLs. `listed` are hosts that are fine whatever they resolve to, as `host` or `host:port`."""

    def __init__(self, *, listed: frozenset[str], resolve: Resolve | None = None) -> None:
        self._listed = frozenset(map(_canonical, listed))
        self._resolve = resolve or HostResolver()

    def parse(self, url: str) -> Target:
        """The URL taken apart.

        Raises:
            RefusedTargetError: its form alone is reason enough.
        """
        if not url.isascii() or not url.isprintable() or any(mark in url for mark in " \\"):
            raise RefusedTargetError(f"Invalid webhook URL {url!r}: it holds characters no URL may hold.")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise RefusedTargetError(f"Invalid webhook URL {url!r}: {error}") from error
        if not parsed.host:
            raise RefusedTargetError(f"Webhook URL must include a hostname: {url!r}")
        if parsed.userinfo:
            raise RefusedTargetError("Webhook URL must not hold a user name or a password.")
        host = parsed.raw_host.decode("ascii").lower()
        port = (80 if parsed.scheme == "http" else 443) if parsed.port is None else parsed.port
        if not 0 < port <= _LARGEST_PORT:
            raise RefusedTargetError(f"Invalid webhook URL {url!r}: there is no port {port}.")
        names = {_bracketed(host), f"{_bracketed(host)}:{port}"}
        target = Target(parsed, host, port, is_listed=not names.isdisjoint(self._listed))
        allowed = ("https", "http") if target.is_listed else ("https",)
        if parsed.scheme not in allowed:
            raise RefusedTargetError(
                f"Invalid webhook URL scheme: {parsed.scheme!r}. Allowed schemes are: {', '.join(allowed)}."
            )
        return target

    async def find_addresses(self, target: Target) -> list[str]:
        """The addresses a request to the target may go to.

        Raises:
            RefusedTargetError: one of them is not public.
            UnresolvedTargetError: there are none.
        """
        found = await self._resolve(target.host, target.port)
        if not found:
            raise UnresolvedTargetError(f"Cannot resolve Webhook URL hostname '{target.host}'.")
        for text in found:
            if not _may_be_reached(text, is_listed=target.is_listed):
                raise RefusedTargetError(
                    f"Webhook URL must not resolve to a non-public IP address. '{target.host}' does."
                )
        return found


def _may_be_reached(text: str, *, is_listed: bool) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if is_listed:
        return not is_never_reached(address)
    return is_public(address)


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, and only of that."""
    inner = _embedded(address)
    if is_never_reached(inner) or not inner.is_global:
        return False
    if isinstance(inner, IPv6Address):
        return inner in _GLOBAL_UNICAST and not any(inner in tunnel for tunnel in _TUNNELS)
    return not inner.is_reserved


def is_never_reached(address: Address) -> bool:
    """Whether not even a listed host may lead there: cloud metadata, multicast, no address at all."""
    inner = _embedded(address)
    if inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return True
    return isinstance(inner, IPv4Address) and (
        inner in (_AZURE_PLATFORM, _BROADCAST) or inner in _THIS_NETWORK
    )


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _canonical(entry: str) -> str:
    entry = entry.strip().lower()
    # More than one colon and no brackets is an IPv6 address alone.
    return f"[{entry}]" if entry.count(":") > 1 and not entry.startswith("[") else entry
