"""`keys`: who may use the server."""

from typing import Annotated, Any

import typer

from server.cli.console import app, ask, say

keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what the key is for.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "write",
    expires_in_days: Annotated[int | None, typer.Option(help="Days until it ends; default: never.")] = None,
    experiments: Annotated[
        list[str] | None,
        typer.Option(
            help="Only experiments whose name matches, '*' for any characters: 'team-a/*'. May be repeated;"
            " default: every experiment."
        ),
    ] = None,
) -> None:
    """Make a key. It is printed once, alone on the last line."""
    body = {
        "name": name,
        "role": role,
        "expires_in_days": expires_in_days,
        "experiments": experiments or [],
    }
    answer = ask("POST", "/keys", json=body)
    typer.echo(f"Key '{name}' with role {answer['role']}. It is shown only now:", err=True)
    say(answer["key"])


@keys_app.command("list")
def list_keys() -> None:
    """List keys, without their secrets. Times are UTC."""
    say(
        f"{'NAME':20} {'PREFIX':14} {'ROLE':6} {'CREATED':17} {'EXPIRES':17} {'LAST USED':17}"
        f" {'STATE':25} EXPERIMENTS"
    )
    for key in ask("GET", "/keys")["keys"]:
        limit = "all" if key["experiments"] is None else ", ".join(key["experiments"])
        say(
            f"{key['name']:20} {key['prefix']:14} {key['role']:6} {_minute(key['created_at']):17}"
            f" {_minute(key['expires_at']):17} {_minute(key['last_used']):17} {_state(key):25} {limit}"
        )


def _minute(milliseconds: int | None) -> str:
    from datetime import UTC, datetime

    if milliseconds is None:
        return "-"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _state(key: dict[str, Any]) -> str:
    import time

    if key["revoked_at"] is not None:
        return f"revoked {_minute(key['revoked_at'])}"
    is_over = key["expires_at"] is not None and key["expires_at"] <= time.time() * 1000
    return "expired" if is_over else "open"


@keys_app.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="The key's name.")]) -> None:
    """Close a key for good."""
    ask("POST", "/keys/revoke", json={"name": name})
    say(f"Key '{name}' is revoked.")
