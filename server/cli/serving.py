"""`serve`, `migrate` and `emulator`: the commands that do not speak to a running server."""

import gc
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.console import app, explained, run, say, settings_of

if TYPE_CHECKING:
    from server.bootstrap import Server
    from server.services.generations import GenerationState
    from server.settings import Settings


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (MLPROXY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (MLPROXY_PORT).")] = None,
) -> None:
    """Run the API, the UI and the replay in one process."""
    # What is made while starting stays; to look through it again and again takes a fifth of the start.
    gc.disable()
    settings = settings_of(host=host, port=port)
    run(_serve(settings))
    _end_despite_threads()


def _end_despite_threads() -> None:
    """Leave behind uploads that storage does not answer: the next life sends them again."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def _serve(settings: "Settings") -> None:
    from server.bootstrap import build
    from server.database.data_folder import lock_data_folder
    from server.listening import listen, listen_for_commands, serve_until_stopped
    from server.services.generations import read_state

    with explained():
        _ = settings.effective_auth
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
        server = await build(settings)
    try:
        with (
            explained(),
            listen(settings.host, settings.port) as listener,
            listen_for_commands(settings.data_dir) as admin,
        ):
            await server.start()
            generation = await server.database.read(read_state)
            say("\n".join([_banner(settings, server, listener), *_shown_generation(generation)]))
            # Frozen as it is: to find the third of a megabyte that could go takes a tenth of the start.
            gc.freeze()
            gc.enable()
            await serve_until_stopped(server, listener, admin)
    finally:
        await server.stop()
        if lock is not None:
            lock.release()


def _banner(settings: "Settings", server: "Server", listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    shown = settings.host if settings.host not in ("0.0.0.0", "::") else socket.gethostname()  # noqa: S104
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}{settings.path_prefix.rstrip('/')}"
    target = "nowhere yet: set MLPROXY_WORKSPACE; everything is kept until then"
    if server.upstream is not None:
        target = server.upstream.address.canonical
    lines = [
        f"mlproxy listens on {url}",
        f"  stores in    {_shown_store(settings)}",
        f"  replays to   {target}",
        f"  clients set  export MLFLOW_TRACKING_URI={url}",
    ]
    if settings.effective_auth.value == "keys":
        lines.append(
            "               export MLFLOW_TRACKING_TOKEN=<key>   (mlproxy keys create NAME makes one)"
        )
    return "\n".join(lines)


def _shown_generation(state: "GenerationState") -> list[str]:
    """That the journal was restored, if it was."""
    if state.restored_from_ms is None:
        return []
    from datetime import UTC, datetime

    made = datetime.fromtimestamp(state.restored_from_ms / 1000, UTC)
    return [
        f"  restored     generation {state.generation} of the journal, from a backup of"
        f" {made:%Y-%m-%d %H:%M:%S} UTC; {state.being_read_back} entries are looked for in the"
        " workspace before they are sent"
    ]


def _shown_store(settings: "Settings") -> str:
    if settings.database_url is None:
        return str(settings.data_dir.absolute())
    from sqlalchemy.engine import make_url

    url = make_url(settings.database_url).render_as_string(hide_password=True)
    return f"{url}, {settings.data_dir.absolute()}"


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = settings_of()
    from server.database.data_folder import lock_data_folder
    from server.database.engine import Database
    from server.database.migration import migrate as bring_up_to_date

    with explained():
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
        database = Database(settings.url)
        try:
            say(f"The database is at schema {bring_up_to_date(database)}.")
        finally:
            database.close()
            if lock is not None:
                lock.release()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def emulator(context: typer.Context) -> None:
    """Run a local Azure ML workspace (see `mlproxy emulator --help`)."""
    from emulator.__main__ import main

    raise typer.Exit(main(context.args))
