"""Sockets, and serving on them until the process is told to stop."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from server.bootstrap import Server
from server.connections import ClientConnection
from server.database.data_folder import ADMIN_SOCKET, short_path
from server.domain.errors import OperatorError

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10
_LAST_REQUESTS_SECONDS = 0.3
"""As long as a load balancer may take from connecting to sending its request."""


class ListenError(OperatorError):
    """The address cannot be listened on; the message says what to do."""


async def serve_until_stopped(server: Server, listener: socket.socket, admin: socket.socket) -> None:
    """Serve both sockets until SIGTERM or SIGINT, then answer what is in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    behind_a_balancer = server.settings.stop_delay_seconds > 0
    kind = _PatientServer if behind_a_balancer else _Server
    public = kind(_configuration(server.door, server.settings.trusted_proxies))
    private = _Server(_configuration(server.admin_door))
    serving = [
        asyncio.create_task(public.serve(sockets=[listener])),
        asyncio.create_task(private.serve(sockets=[admin])),
    ]
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([stopped, *serving], return_when=asyncio.FIRST_COMPLETED)
    server.begin_stop()
    if stop.is_set() and behind_a_balancer:
        # It still sends us requests, until it has asked whether we are ready.
        stop.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(server.settings.stop_delay_seconds):
                await stop.wait()
    stopped.cancel()
    public.should_exit = private.should_exit = True
    await asyncio.gather(*serving)


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would end the process with the signal, not with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _PatientServer(_Server):
    """Answers, at its end, whoever had got as far as to connect.

    A connection that is closed with a request unread is reset, and a load balancer sends no write twice: its
    client would get a 502.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # One turn of the loop accepts whoever waits.
        await asyncio.sleep(0)
        for each in self.servers:
            each.close()
        for each_socket in sockets or []:
            each_socket.close()
        # Every answer from here on closes its connection: those that are left afterwards have sent nothing.
        await asyncio.sleep(_LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)


def _configuration(application: Any, trusted_proxies: str = "") -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=ClientConnection,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket for clients.

    Raises:
        ListenError: the address is taken, or not of this machine.
    """
    try:
        listener = _open_listener(host, port)
    except OSError as error:
        raise ListenError(
            f"Cannot listen on {host}:{port}: {error.strerror}. Set MLPROXY_PORT to another port."
        ) from error
    with listener:
        listener.setblocking(False)
        yield listener


def _open_listener(host: str, port: int) -> socket.socket:
    # Named as TCP, or some event loops leave Nagle's algorithm on: 40 ms a call (uvicorn#3149).
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(_BACKLOG)
    return listener


@contextmanager
def listen_for_commands(data_dir: Path) -> Iterator[socket.socket]:
    """The socket for commands on this machine; its file mode is the credential."""
    path = data_dir / ADMIN_SOCKET
    path.unlink(missing_ok=True)
    admin = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with admin:
        # A path of over 107 bytes does not fit an address; one through the folder's descriptor does.
        with short_path(path) as short:
            admin.bind(short)
        path.chmod(0o600)
        ours = path.stat().st_ino
        admin.listen(16)
        admin.setblocking(False)
        yield admin
    with suppress(FileNotFoundError):
        # Another replica may have put its own in this place since.
        if path.stat().st_ino == ours:
            path.unlink()
