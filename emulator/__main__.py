"""`python -m emulator`: serve a local workspace until SIGTERM or Ctrl-C.

Plain HTTP always; TLS beside it on a port of its own when asked for. Both serve the same workspace.
"""

import argparse
import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from emulator.app import create_app
from emulator.blob_store import AzuriteBlobs, BlobStore, FileBlobs
from emulator.certificates import ensure_certificates
from emulator.limits import Limits
from emulator.settings import Settings
from emulator.store import Store
from emulator.tokens import Tokens
from emulator.workspace import Workspace

SHUTDOWN_SECONDS = 1
SCOPE = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/emulator"
    "/providers/Microsoft.MachineLearningServices/workspaces/"
)


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket and how to speak on it."""

    socket: socket.socket
    certificate: Path | None = None
    key: Path | None = None

    @property
    def port(self) -> int:
        """The port that was bound, also where a free one was asked for."""
        return int(self.socket.getsockname()[1])


class Server(uvicorn.Server):
    """Leaves the process's signals alone: two servers would fight over them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to `serve`."""
        yield


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; 0 then, 1 if it could not start."""
    options = parser().parse_args(argv)
    folder: Path = options.data_dir.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        listeners = bind(options, folder)
    except OSError as error:
        sys.stderr.write(f"emulator: cannot listen: {error}\n")
        return 1
    workspace = open_workspace(options, folder)
    announce(options, folder, listeners)
    try:
        asyncio.run(serve(create_app(workspace), listeners))
    finally:
        workspace.store.close()
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="emulator", description="A local Azure ML workspace.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8800, help="plain HTTP; 0 picks a free one")
    options.add_argument("--tls", action="store_true", help="serve https too, on --tls-port or a free port")
    options.add_argument("--tls-port", type=int, help="https beside plain HTTP; 0 picks a free one")
    options.add_argument("--data-dir", type=Path, default=Path("emulator-data"))
    options.add_argument("--workspace", action="append", metavar="NAME", help="repeatable; default: emulator")
    options.add_argument("--token-seconds", type=float)
    options.add_argument("--search-lag-seconds", type=float)
    options.add_argument("--artifact-page-size", type=int)
    options.add_argument("--blob-endpoint", metavar="URL", help="keep bytes in Azurite at this address")
    return options


def bind(options: argparse.Namespace, folder: Path) -> list[Listener]:
    """Bind every address that was asked for; raises `OSError` for one that is taken."""
    listeners = [Listener(_socket(options.host, options.port))]
    if options.tls or options.tls_port is not None:
        _, certificate, key = ensure_certificates(folder / "tls")
        listeners.append(Listener(_socket(options.host, options.tls_port or 0), certificate, key))
    return listeners


def open_workspace(options: argparse.Namespace, folder: Path) -> Workspace:
    """The workspace in `folder`; settings given on the command line replace the ones kept there."""
    store = Store(folder / "emulator.db")
    blobs: BlobStore = FileBlobs(store=store, folder=folder / "blobs")
    if options.blob_endpoint:
        blobs = AzuriteBlobs(options.blob_endpoint)
    workspace = Workspace(
        store=store,
        blobs=blobs,
        tokens=Tokens(store),
        settings=_kept_settings(store),
        names=frozenset(options.workspace or ["emulator"]),
    )
    given = {
        name: getattr(options, name)
        for name in ("token_seconds", "search_lag_seconds", "artifact_page_size")
        if getattr(options, name) is not None
    }
    workspace.change_settings(given)
    return workspace


def announce(options: argparse.Namespace, folder: Path, listeners: list[Listener]) -> None:
    """What a person has to paste."""
    name = (options.workspace or ["emulator"])[0]
    is_wildcard = options.host in {"0.0.0.0", "::"}  # noqa: S104  only compared with
    host = "127.0.0.1" if is_wildcard else options.host
    plain, *secure = (f"{host}:{listener.port}" for listener in listeners)
    lines = [f"workspace:       azureml://{plain}/mlflow/v1.0{SCOPE}{name}"]
    for address in secure:
        lines += [
            f"workspace (TLS): azureml://{address}/mlflow/v1.0{SCOPE}{name}",
            f"trust:           export REQUESTS_CA_BUNDLE={folder / 'tls' / 'ca.pem'}",
        ]
    lines += [
        f"identity:        export IDENTITY_ENDPOINT=http://{plain}/msi/token IDENTITY_HEADER=emulator",
        f"look inside:     http://{plain}/emulator",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


async def serve(app: ASGIApp, listeners: list[Listener]) -> None:
    """All listeners in one loop; the first signal stops them all."""
    servers = [Server(_config(app, listener)) for listener in listeners]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    pairs = zip(servers, listeners, strict=True)
    await asyncio.gather(*(server.serve([listener.socket]) for server, listener in pairs))


def _config(app: ASGIApp, listener: Listener) -> uvicorn.Config:
    tls: dict[str, Any] = {}
    if listener.certificate is not None and listener.key is not None:
        tls = {"ssl_certfile": str(listener.certificate), "ssl_keyfile": str(listener.key)}
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        **tls,
    )


def _socket(host: str, port: int) -> socket.socket:
    """The protocol is named because asyncio sets TCP_NODELAY only then: 40 ms a call otherwise."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def _kept_settings(store: Store) -> Settings:
    kept = json.loads(store.find_fact("settings") or "{}")
    limits = Limits().changed(kept.pop("limits", {}))
    return Settings(limits=limits, **kept)


if __name__ == "__main__":
    raise SystemExit(main())
