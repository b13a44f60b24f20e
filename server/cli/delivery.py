"""`status`, `drain` and `verify`: how far delivery is."""

from typing import Annotated, Any

import typer

from server.cli.console import app, ask, say, shown_size, shown_time
from server.cli.parked import print_parked

_FULLNESS_WORDS = {
    "has_room": "",
    "soft_full": "  SOFT FULL: clients are told to come again (429)",
    "hard_full": "  HARD FULL: clients are refused (507)",
}


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Backlog, lag, parked, uncertain, overflow, disk, workspace reachability, throttling, token."""
    import json

    answer = ask("GET", "/status")
    if as_json:
        say(json.dumps(answer, indent=2))
        return
    token = answer["token"]
    say(f"pending    {answer['pending']} entries; lag {shown_time(answer['lag_seconds'])}")
    say(f"backlog    {_shown_fill(answer, 'pending')}")
    say(f"uncertain  {answer['uncertain']}")
    if answer["generation"] > 1:
        say(f"restored   generation {answer['generation']}; {answer['being_read_back']} being read back")
    say(f"parked     {_shown_parked(answer)}")
    say(f"overflow   {answer['overflow']}")
    say(f"spool      {_shown_fill(answer, 'spool')}")
    say(f"disk       {_shown_disk(answer['disk'])}")
    say(f"workspace  {_shown_workspace(answer['workspace'])}")
    if answer["pace"] is not None:
        say(f"pace       {_shown_pace(answer['pace'])}")
    if token is not None:
        left = token["expires_in_seconds"]
        say(f"token      {'none held' if left is None else f'{shown_time(left)} left'}")
        if token["last_error"]:
            say(f"           NOT RENEWED, {token['failures']} times: {token['last_error']}")
    say(f"version    {answer['version']}")


def _shown_parked(answer: dict[str, Any]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in answer["parked_by_reason"].items() if count)
    shown = f" ({reasons})" if reasons else ""
    decided = f"; {answer['dropped']} dropped" if answer["dropped"] else ""
    advice = ": see `mlproxy parked list`" if answer["parked"] else ""
    return f"{answer['parked']}{shown}{decided}{advice}"


def _shown_fill(answer: dict[str, Any], store: str) -> str:
    """How much of its limit a store holds, and what that means for clients."""
    held = f"{shown_size(answer[f'{store}_bytes'])} of {shown_size(answer[f'{store}_limit_bytes'])}"
    return held + _FULLNESS_WORDS[answer[f"{store}_fullness"]]


def _shown_disk(disk: dict[str, Any]) -> str:
    """What is free, what the store holds, and how long that will go well."""
    room = f"{shown_size(disk['free_bytes'])} free of {shown_size(disk['total_bytes'])}"
    store = f"store {shown_size(disk['store_bytes'])}"
    if not disk["has_headroom"]:
        wanted = shown_size(disk["least_free_bytes"])
        return f"{room}; {store}  FULL: /health/ready says no below {wanted} (MLPROXY_MIN_FREE_BYTES)"
    growth, days = disk["growth_bytes_per_day"], disk["days_until_full"]
    if growth is None:
        return f"{room}; {store}; its growth is known after an hour"
    if days is None:
        return f"{room}; {store}, does not grow"
    return f"{room}; {store}, grows by {shown_size(growth)} a day: full in {days:.0f} days"


def _shown_pace(pace: dict[str, Any]) -> str:
    """How often the workspace is called, and what holds that back."""
    shown = f"{pace['calls_per_second']:.0f} of {pace['most_calls_per_second']:.0f} calls a second"
    if pace["is_throttled"]:
        shown += "  THROTTLED: the workspace has refused calls as too many (429)"
    if pace["waits_seconds"]:
        shown += f"; the next in {shown_time(pace['waits_seconds'])}"
    return shown


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
    answer = ask("POST", "/drain", json={"timeout_seconds": timeout}, patience=timeout + 30, delivers=True)
    if answer["pending"] or answer["uncertain"]:
        say(f"Still {answer['pending']} pending and {answer['uncertain']} uncertain after {timeout:g} s.")
        raise typer.Exit(1)
    say(
        "Everything is delivered."
        if not answer["parked"]
        else f"Everything else is delivered; {answer['parked']} parked:"
    )
    if answer["parked"]:
        print_parked(ask("GET", "/parked"))


@app.command()
def verify(run_id: Annotated[str, typer.Argument(help="The run's id.")]) -> None:
    """Compare a run here with the workspace, point by point."""
    answer = ask("GET", f"/verify/{run_id}", patience=600)
    counted = ", ".join(f"{answer[what]} {what}" for what in ("points", "params", "tags", "artifacts"))
    if answer["overflow"]:
        counted += f"; {answer['overflow']} values in overflow files"
    if answer["equal"]:
        say(f"Run {run_id} is the same in the workspace: {counted}.")
        return
    say(f"Run {run_id} differs ({counted} here):")
    for difference in answer["differences"]:
        say(f"  {difference['what']}: here {difference['here']}, there {difference['there']}")
    raise typer.Exit(1)
