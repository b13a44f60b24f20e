"""`ui`: the stock MLflow UI's files."""

from pathlib import Path
from typing import Annotated

import typer

from server.cli.console import app, explained, say, settings_of

ui_app = typer.Typer(help="The stock MLflow UI.", no_args_is_help=True)
app.add_typer(ui_app, name="ui")


@ui_app.command("install")
def install_ui(
    from_wheel: Annotated[
        Path | None, typer.Option(help="MLflow's wheel as a file, where pip cannot download it.")
    ] = None,
) -> None:
    """Fetch the stock MLflow UI and put it where the server finds it (MLPROXY_UI_DIR)."""
    settings = settings_of()
    from server.services.ui_files import UI_VERSION
    from server.services.ui_install import install_ui as install

    with explained():
        is_new = install(settings.ui_folder, from_wheel)
    state = "installed" if is_new else "there already"
    say(f"The UI of MLflow {UI_VERSION} is {state}, in {settings.ui_folder.absolute()}.")
