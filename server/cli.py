"""The command line.

Every command but `serve`, `migrate` and `emulator` speaks to the running server over `admin.sock` in
the data folder, and opens the database itself only when no server holds it.
"""

import asyncio
import gc
import socket
import sys
from collections.abc import Coroutine
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from server.domain.errors import OperatorError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.bootstrap import Server
    from server.settings import Settings

T = TypeVar("T")

app = typer.Typer(
    name="mlproxy",
    help="A tracking proxy between stock MLflow clients and an Azure Machine Learning workspace.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
ui_app = typer.Typer(help="The stock MLflow UI.", no_args_is_help=True)
app.add_typer(ui_app, name="ui")

ADMIN_SOCKET = "admin.sock"
_OWN = "/api/2.0/mlproxy"
_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 10
_PATIENCE_SECONDS = 60.0


# --- serve ----------------------------------------------------------------------------------


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (MLPROXY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (MLPROXY_PORT).")] = None,
) -> None:
    """Run the API, the UI and the replay in one process."""
    settings = _settings(host=host, port=port)
    _run(_serve(settings))


async def _serve(settings: "Settings") -> None:
    from server.bootstrap import build
    from server.database.data_folder import lock_data_folder
    from server.listening import listen, listen_for_commands, serve_until_stopped

    with _explained():
        _ = settings.effective_auth
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
        server = await build(settings)
    try:
        with (
            _explained(),
            listen(settings.host, settings.port) as listener,
            listen_for_commands(settings.data_dir) as admin,
        ):
            await server.start()
            _say(_banner(settings, server, listener))
            gc.collect()
            gc.freeze()
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


def _shown_store(settings: "Settings") -> str:
    if settings.database_url is None:
        return str(settings.data_dir.absolute())
    from sqlalchemy.engine import make_url

    url = make_url(settings.database_url).render_as_string(hide_password=True)
    return f"{url}, {settings.data_dir.absolute()}"


# --- other commands -------------------------------------------------------------------------


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = _settings()
    from server.database.data_folder import lock_data_folder
    from server.database.engine import Database
    from server.database.migration import migrate as bring_up_to_date

    with _explained():
        lock = lock_data_folder(settings.data_dir, holds_database=settings.is_sqlite)
        database = Database(settings.url)
        try:
            _say(f"The database is at schema {bring_up_to_date(database)}.")
        finally:
            database.close()
            if lock is not None:
                lock.release()


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Backlog, lag, parked, uncertain, overflow, token, workspace reachability."""
    import json

    answer = _ask("GET", "/status")
    if as_json:
        _say(json.dumps(answer, indent=2))
        return
    workspace, token = answer["workspace"], answer["token"]
    _say(
        f"pending    {answer['pending']} entries, {_size(answer['pending_bytes'])}; lag"
        f" {answer['lag_seconds']:.1f} s"
    )
    _say(f"uncertain  {answer['uncertain']}")
    _say(f"parked     {answer['parked']}")
    _say(f"overflow   {answer['overflow']}")
    _say(f"spool      {_size(answer['spool_bytes'])}")
    _say(f"workspace  {_shown_workspace(workspace)}")
    if token is not None:
        left = token["expires_in_seconds"]
        _say(f"token      {'none held' if left is None else f'{left:.0f} s left'}")
        if token["last_error"]:
            _say(f"           {token['last_error']}")


def _shown_workspace(workspace: dict[str, Any]) -> str:
    if not workspace["configured"]:
        return "not configured: set MLPROXY_WORKSPACE"
    reachable = {True: "reachable", False: "NOT reachable", None: "not tried yet"}[workspace["reachable"]]
    failure = f" ({workspace['last_failure']})" if workspace["last_failure"] else ""
    return f"{reachable}: {workspace['address']}{failure}"


@app.command()
def drain(
    timeout: Annotated[float, typer.Option(help="Longest wait, in seconds.")] = 60.0,
) -> None:
    """Wait until nothing is pending or uncertain; exit 1 at the timeout."""
    answer = _ask("POST", "/drain", json={"timeout_seconds": timeout}, patience=timeout + 30, delivers=True)
    if answer["pending"] or answer["uncertain"]:
        _say(f"Still {answer['pending']} pending and {answer['uncertain']} uncertain after {timeout:g} s.")
        raise typer.Exit(1)
    _say(
        "Everything is delivered."
        if not answer["parked"]
        else f"Everything else is delivered; {answer['parked']} parked:"
    )
    if answer["parked"]:
        for item in _ask("GET", "/parked")["parked"]:
            _say(
                f"  {item['parked_id']}  run {item['run_id']}  {item['kind']}  {item['reason']}:"
                f" {item['message']}"
            )


@app.command()
def verify(run_id: Annotated[str, typer.Argument(help="The run's id.")]) -> None:
    """Compare a run here with the workspace, point by point."""
    answer = _ask("GET", f"/verify/{run_id}", patience=600)
    counted = ", ".join(f"{answer[what]} {what}" for what in ("points", "params", "tags", "artifacts"))
    if answer["equal"]:
        _say(f"Run {run_id} is the same in the workspace: {counted}.")
        return
    _say(f"Run {run_id} differs ({counted} here):")
    for difference in answer["differences"]:
        _say(f"  {difference['what']}: here {difference['here']}, there {difference['there']}")
    raise typer.Exit(1)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what the key is for.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "write",
    expires_in_days: Annotated[int | None, typer.Option(help="Days until it ends; default: never.")] = None,
) -> None:
    """Make a key. It is printed once, alone on the last line."""
    body = {"name": name, "role": role, "expires_in_days": expires_in_days}
    answer = _ask("POST", "/keys", json=body)
    typer.echo(f"Key '{name}' with role {answer['role']}. It is shown only now:", err=True)
    _say(answer["key"])


@keys_app.command("list")
def list_keys() -> None:
    """List keys, without their secrets."""
    from datetime import UTC, datetime

    def day(milliseconds: int | None) -> str:
        return (
            "-"
            if milliseconds is None
            else datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        )

    _say(f"{'NAME':20} {'PREFIX':14} {'ROLE':6} {'CREATED':17} {'EXPIRES':17} {'LAST USED':17} STATE")
    for key in _ask("GET", "/keys")["keys"]:
        state = "open" if key["revoked_at"] is None else f"revoked {day(key['revoked_at'])}"
        _say(
            f"{key['name']:20} {key['prefix']:14} {key['role']:6} {day(key['created_at']):17}"
            f" {day(key['expires_at']):17} {day(key['last_used']):17} {state}"
        )


@keys_app.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="The key's name.")]) -> None:
    """Close a key for good."""
    _ask("POST", "/keys/revoke", json={"name": name})
    _say(f"Key '{name}' is revoked.")


@ui_app.command("install")
def install_ui(
    from_wheel: Annotated[
        Path | None, typer.Option(help="MLflow's wheel as a file, where pip cannot download it.")
    ] = None,
) -> None:
    """Fetch the stock MLflow UI and put it where the server finds it (MLPROXY_UI_DIR)."""
    settings = _settings()
    from server.services.ui_files import UI_VERSION
    from server.services.ui_install import install_ui as install

    with _explained():
        is_new = install(settings.ui_folder, from_wheel)
    state = "installed" if is_new else "there already"
    _say(f"The UI of MLflow {UI_VERSION} is {state}, in {settings.ui_folder.absolute()}.")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def emulator(context: typer.Context) -> None:
    """Run a local Azure ML workspace (see `mlproxy emulator --help`)."""
    from emulator.__main__ import main

    raise typer.Exit(main(context.args))


# --- asking the server ----------------------------------------------------------------------


def _ask(
    method: str,
    path: str,
    *,
    json: dict[str, Any] | None = None,
    patience: float = _PATIENCE_SECONDS,
    delivers: bool = False,
) -> dict[str, Any]:
    """The server's answer: of the running one, or of one that runs only for this command."""
    settings = _settings()
    return _run(_ask_any(settings, method, path, json, patience, delivers=delivers))


async def _ask_any(
    settings: "Settings",
    method: str,
    path: str,
    json: dict[str, Any] | None,
    patience: float,
    *,
    delivers: bool,
) -> dict[str, Any]:
    from server.admin import connect

    with _explained():
        async with connect(settings, patience=patience, delivers=delivers) as client:
            response = await client.request(method, f"{_OWN}{path}", json=json)
    answer: dict[str, Any] = response.json()
    if response.is_error:
        _fail(answer.get("message", response.text))
    return answer


# --- helpers --------------------------------------------------------------------------------


def _settings(**overrides: object) -> "Settings":
    from server.settings import load_settings
    from server.telemetry.logs import configure_logs

    with _explained():
        settings = load_settings(**overrides)
    configure_logs(as_json=settings.log_format.value == "json", level=settings.log_level)
    return settings


@contextmanager
def _explained() -> "Iterator[None]":
    """What an operator can mend ends the command with a sentence, not with a traceback."""
    try:
        yield
    except OperatorError as error:
        _fail(str(error))


def _run(work: Coroutine[Any, Any, T]) -> T:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _say(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _fail(message: str) -> NoReturn:
    typer.echo(f"mlproxy: {message}", err=True)
    raise typer.Exit(1)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
