"""`parked`: looking at what was set aside, and deciding on it."""

import shutil
import sys
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from server.cli.console import app, ask, fail, say, shown_size

parked_app = typer.Typer(help="Entries set aside for a decision.", no_args_is_help=True)
app.add_typer(parked_app, name="parked")

_NARROWEST_MESSAGE = 40
_PATIENCE_SECONDS = 600.0
_HEADINGS = ("ID", "RUN", "WHAT", "PARKED AT", "REASON", "MESSAGE")

Ids = Annotated[list[int] | None, typer.Argument(help="Ids of parked entries.", show_default=False)]
RunId = Annotated[str | None, typer.Option("--run", help="All parked entries of this run.")]
All = Annotated[bool, typer.Option("--all", help="All parked entries.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@parked_app.command("list")
def list_parked(
    run_id: Annotated[str | None, typer.Option("--run", help="Only of this run.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Only refused, uncertain_outcome or corrupt_entry.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most entries to show.")] = 100,
    page: Annotated[str | None, typer.Option(help="The page that an earlier list named.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for a decision, oldest first."""
    wanted = {"run_id": run_id, "reason": reason, "max_results": limit, "page_token": page}
    query = urlencode({name: value for name, value in wanted.items() if value is not None})
    answer = ask("GET", f"/parked?{query}")
    if as_json:
        _say_json(answer)
    elif answer["total"]:
        print_parked(answer)
    else:
        say("Nothing is parked.")


def print_parked(answer: dict[str, Any]) -> None:
    """A page of parked entries as a table."""
    rows = [_HEADINGS, *(_row(item) for item in answer["parked"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 1)]
    taken = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size().columns - taken, _NARROWEST_MESSAGE)
    if not sys.stdout.isatty():
        room = sys.maxsize
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, _cut(row[-1], room)]).rstrip())
    shown = len(answer["parked"])
    if answer.get("next_page_token"):
        say(
            f"{shown} of {answer['total']} shown. The rest: mlproxy parked list --page"
            f" {answer['next_page_token']}"
        )


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(item["parked_id"]),
        item["run_id"] or f"({item['subject']})",
        item["what"],
        _moment(item["parked_at"]),
        item["reason"],
        " ".join(item["message"].split()),
    )


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@parked_app.command("show")
def show_parked(
    parked_id: Annotated[int, typer.Argument(help="The entry's id.")], as_json: AsJson = False
) -> None:
    """Show one entry whole, with the workspace's own words and what was decided."""
    answer = ask("GET", f"/parked/{parked_id}")
    if as_json:
        _say_json(answer)
        return
    payload = answer.pop("payload")
    for name, value in answer.items():
        if value is not None:
            shown = f"{_moment(value)} UTC" if name.endswith("_at") else value
            say(f"{name.replace('_', ' '):16} {shown}")
    for name, value in payload.items():
        say(f"  {name:14} {value}")


@parked_app.command("retry")
def retry_parked(
    parked_ids: Ids = None, run_id: RunId = None, everything: All = False, as_json: AsJson = False
) -> None:
    """Send entries again, in their old order; never what came later has replaced."""
    answer = _decide("retry", {"ids": parked_ids or [], "run_id": run_id, "all": everything})
    if as_json:
        _say_json(answer)
        return
    say(f"{answer['retried']} on their way again.")
    for item in answer["superseded"]:
        say(f"  {item['parked_id']} is not sent, and decided: {item['why']}")
    for item in answer["kept"]:
        say(f"  {item['parked_id']} stays parked: {item['why']}")
    if answer["suggestion"]:
        say(answer["suggestion"])


@parked_app.command("drop")
def drop_parked(
    reason: Annotated[str, typer.Option(help="Why; kept with the decision.")],
    parked_ids: Ids = None,
    run_id: RunId = None,
    everything: All = False,
    as_json: AsJson = False,
) -> None:
    """Never deliver entries. Reads still show them, but for files, whose spooled bytes are deleted."""
    body = {"ids": parked_ids or [], "run_id": run_id, "all": everything, "reason": reason}
    answer = _decide("drop", body)
    if as_json:
        _say_json(answer)
        return
    freed = f" {shown_size(answer['freed_bytes'])} of files are deleted." if answer["freed_bytes"] else ""
    say(f"{answer['dropped']} dropped.{freed}")


def _decide(how: str, body: dict[str, Any]) -> dict[str, Any]:
    if sum((bool(body["ids"]), bool(body["run_id"]), body["all"])) != 1:
        fail("Name the entries: some ids, or --run RUN_ID, or --all.")
    return ask("POST", f"/parked/{how}", json=body, patience=_PATIENCE_SECONDS)


def _say_json(answer: dict[str, Any]) -> None:
    import json

    say(json.dumps(answer, indent=2))
