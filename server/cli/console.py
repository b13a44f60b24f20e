"""What the commands share: settings, asking the server, sentences instead of tracebacks."""

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from server.domain.errors import OperatorError
from server.domain.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.settings import Settings

T = TypeVar("T")

app = typer.Typer(
    name="mlproxy",
    help="A tracking proxy between stock MLflow clients and an Azure Machine Learning workspace.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

OWN = "/api/2.0/mlproxy"
_PATIENCE_SECONDS = 60.0


def ask(
    method: str,
    path: str,
    *,
    json: dict[str, Any] | None = None,
    patience: float = _PATIENCE_SECONDS,
    delivers: bool = False,
) -> dict[str, Any]:
    """The server's answer: of the running one, or of one that runs only for this command."""
    settings = settings_of()
    return run(_ask_any(settings, method, path, json, patience, delivers=delivers))


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

    with explained():
        async with connect(settings, patience=patience, delivers=delivers) as client:
            response = await client.request(method, f"{OWN}{path}", json=json)
    answer: dict[str, Any] = response.json()
    if response.is_error:
        fail(answer.get("message", response.text))
    return answer


def settings_of(**overrides: object) -> "Settings":
    """The settings, where what is given here wins; logging follows them, and hides their secrets."""
    from server.domain.redaction import hide_values
    from server.settings import load_settings
    from server.telemetry.logs import configure_logs

    with explained():
        settings = load_settings(**overrides)
    hide_values(*settings.secret_values)
    configure_logs(as_json=settings.log_format.value == "json", level=settings.log_level)
    return settings


@contextmanager
def explained() -> "Iterator[None]":
    """What an operator can mend ends the command with a sentence, not with a traceback."""
    try:
        yield
    except OperatorError as error:
        fail(str(error))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one piece of asynchronous work to its end."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    typer.echo(text)
    sys.stdout.flush()


def fail(message: str) -> NoReturn:
    """End the command with a sentence on stderr and exit code 1."""
    typer.echo(f"mlproxy: {redact(message)}", err=True)
    raise typer.Exit(1)


def shown_time(seconds: float) -> str:
    """A span of time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86400 else f"{seconds / 86400:.1f} days"


def shown_size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
