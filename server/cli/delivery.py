"""`status`, `drain` and `verify`: how far delivery is."""

from typing import Annotated, Any

import typer

from server.cli.console import app, ask, say, shown_size
from server.cli.parked import print_parked

_FULLNESS_WORDS = {
    "has_room": "",
    "soft_full": "  SOFT FULL: clients are told to come again (429)",
    "hard_full": "  HARD FULL: clients are refused (507)",
}


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Backlog, lag, parked, uncertain, overflow, token, workspace reachability."""
    import json

    answer = ask("GET", "/status")
    if as_json:
        say(json.dumps(answer, indent=2))
        return
    workspace, token = answer["workspace"], answer["token"]
    say(f"pending    {answer['pending']} entries; lag {answer['lag_seconds']:.1f} s")
    say(f"backlog    {_shown_fill(answer, 'pending')}")
    say(f"uncertain  {answer['uncertain']}")
    if answer["generation"] > 1:
        say(f"restored   generation {answer['generation']}; {answer['being_read_back']} being read back")
    say(f"parked     {_shown_parked(answer)}")
    say(f"overflow   {answer['overflow']}")
    say(f"spool      {_shown_fill(answer, 'spool')}")
    say(f"workspace  {_shown_workspace(workspace)}")
    if token is not None:
        left = token["expires_in_seconds"]
        say(f"token      {'none held' if left is None else f'{left:.0f} s left'}")
        if token["last_error"]:
            say(f"           {token['last_error']}")


def _shown_parked(answer: dict[str, Any]) -> str:
    decided = f"; {answer['dropped']} dropped" if answer["dropped"] else ""
    advice = ": see `mlproxy parked list`" if answer["parked"] else ""
    return f"{answer['parked']}{decided}{advice}"


def _shown_fill(answer: dict[str, Any], store: str) -> str:
    """How much of its limit a store holds, and what that means for clients."""
    held = f"{shown_size(answer[f'{store}_bytes'])} of {shown_size(answer[f'{store}_limit_bytes'])}"
    return held + _FULLNESS_WORDS[answer[f"{store}_fullness"]]


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
