"""`keys`: who may use the server."""

from typing import Annotated

import typer

from server.cli.console import app, ask, say

keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what the key is for.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "write",
    expires_in_days: Annotated[int | None, typer.Option(help="Days until it ends; default: never.")] = None,
) -> None:
    """Make a key. It is printed once, alone on the last line."""
    body = {"name": name, "role": role, "expires_in_days": expires_in_days}
    answer = ask("POST", "/keys", json=body)
    typer.echo(f"Key '{name}' with role {answer['role']}. It is shown only now:", err=True)
    say(answer["key"])


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

    say(f"{'NAME':20} {'PREFIX':14} {'ROLE':6} {'CREATED':17} {'EXPIRES':17} {'LAST USED':17} STATE")
    for key in ask("GET", "/keys")["keys"]:
        state = "open" if key["revoked_at"] is None else f"revoked {day(key['revoked_at'])}"
        say(
            f"{key['name']:20} {key['prefix']:14} {key['role']:6} {day(key['created_at']):17}"
            f" {day(key['expires_at']):17} {day(key['last_used']):17} {state}"
        )


@keys_app.command("revoke")
def revoke_key(name: Annotated[str, typer.Argument(help="The key's name.")]) -> None:
    """Close a key for good."""
    ask("POST", "/keys/revoke", json={"name": name})
    say(f"Key '{name}' is revoked.")
