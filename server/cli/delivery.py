"""`status`, `drain` and `verify`: how far delivery is."""

from typing import Annotated, Any

import typer

from server.cli.console import app, ask, say, shown_size


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Backlog, lag, parked, uncertain, overflow, token, workspace reachability."""
    import json

    answer = ask("GET", "/status")
    if as_json:
        say(json.dumps(answer, indent=2))
        return
    workspace, token = answer["workspace"], answer["token"]
    say(
        f"pending    {answer['pending']} entries, {shown_size(answer['pending_bytes'])}; lag"
        f" {answer['lag_seconds']:.1f} s"
    )
    say(f"uncertain  {answer['uncertain']}")
    say(f"parked     {answer['parked']}")
    say(f"overflow   {answer['overflow']}")
    say(f"spool      {shown_size(answer['spool_bytes'])}")
    say(f"workspace  {_shown_workspace(workspace)}")
    if token is not None:
        left = token["expires_in_seconds"]
        say(f"token      {'none held' if left is None else f'{left:.0f} s left'}")
        if token["last_error"]:
            say(f"           {token['last_error']}")


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
        for item in ask("GET", "/parked")["parked"]:
            say(
                f"  {item['parked_id']}  run {item['run_id']}  {item['kind']}  {item['reason']}:"
                f" {item['message']}"
            )


@app.command()
def verify(run_id: Annotated[str, typer.Argument(help="The run's id.")]) -> None:
    """Compare a run here with the workspace, point by point."""
    answer = ask("GET", f"/verify/{run_id}", patience=600)
    counted = ", ".join(f"{answer[what]} {what}" for what in ("points", "params", "tags", "artifacts"))
    if answer["equal"]:
        say(f"Run {run_id} is the same in the workspace: {counted}.")
        return
    say(f"Run {run_id} differs ({counted} here):")
    for difference in answer["differences"]:
        say(f"  {difference['what']}: here {difference['here']}, there {difference['there']}")
    raise typer.Exit(1)
