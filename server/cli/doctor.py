"""`doctor`: each thing that must work, tried for real."""

import json as json_module
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.console import OWN, app, explained, fail, run, say, settings_of
from server.domain.errors import OperatorError
from server.domain.findings import Finding, Outcome

if TYPE_CHECKING:
    from server.settings import Settings

_PATIENCE_SECONDS = 300.0
_MARKS = {Outcome.OK: "ok", Outcome.WARNING: "WARN", Outcome.FAILED: "FAIL", Outcome.SKIPPED: "-"}
_NAME_WIDTH = 13


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each check.")] = False,
) -> None:
    """Try each thing that must work, for real, and say how to mend what does not; exit 1 if something fails.

    On the workspace it uses an experiment of its own, 'mlproxy-doctor', and leaves a deleted run there.
    """
    with explained():
        settings = settings_of()
    is_well = run(_examine(settings, as_json=as_json))
    if not is_well:
        raise typer.Exit(1)


async def _examine(settings: "Settings", *, as_json: bool) -> bool:
    is_well = True
    try:
        async for finding in _ask(settings):
            _show(finding, as_json=as_json)
            is_well = is_well and finding.outcome is not Outcome.FAILED
    except OperatorError as error:
        _show(Finding("start", Outcome.FAILED, str(error)), as_json=as_json)
        return False
    return is_well


async def _ask(settings: "Settings") -> AsyncIterator[Finding]:
    from server.admin import connect

    async with (
        connect(settings, patience=_PATIENCE_SECONDS, delivers=False) as client,
        client.stream("POST", f"{OWN}/doctor") as answer,
    ):
        if answer.is_error:
            fail((await answer.aread()).decode(errors="replace"))
        async for line in answer.aiter_lines():
            if line:
                yield _finding(json_module.loads(line))


def _finding(message: dict[str, Any]) -> Finding:
    return Finding(message["check"], Outcome(message["outcome"]), message["found"], message["advice"])


def _show(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        say(
            json_module.dumps(
                {
                    "check": finding.check,
                    "outcome": finding.outcome.value,
                    "found": finding.found,
                    "advice": finding.advice,
                }
            )
        )
        return
    say(f"{_MARKS[finding.outcome]:5} {finding.check:{_NAME_WIDTH}} {finding.found}")
    if finding.advice and finding.outcome is not Outcome.OK:
        say(f"{'':5} {'':{_NAME_WIDTH}} -> {finding.advice}")
