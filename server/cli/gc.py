"""`gc`: removing for good what was deleted long ago."""

import re
import time
from collections import Counter
from datetime import timedelta
from typing import Annotated, Any

import typer

from server.cli.console import app, ask, fail, say

_PATIENCE_SECONDS = 600.0
_SECONDS_BETWEEN_LINES = 5.0
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
_WHY = {
    "undelivered": "have something that has not reached the workspace, or is parked (--discard-undelivered)",
    "registered": "hold the files of a registered model version: delete the version first",
    "models": "made logged models that are not deleted (--with-models removes these too)",
    "newest": "are the newest run of all, which stays until another is logged",
    "runs": "still have runs",
}

Ids = Annotated[str | None, typer.Option(help="Only these, separated by commas.", show_default=False)]


@app.command()
def gc(
    older_than: Annotated[str, typer.Option(help="Deleted at least so long ago, as 30d or 1d12h.")] = "30d",
    run_ids: Ids = None,
    experiment_ids: Annotated[
        str | None,
        typer.Option(
            "--experiment-ids",
            "--experiments",
            help="Only in these, separated by commas.",
            show_default=False,
        ),
    ] = None,
    discard_undelivered: Annotated[
        bool,
        typer.Option("--discard-undelivered", help="Also what the workspace has not got. It never will."),
    ] = False,
    with_models: Annotated[
        bool, typer.Option("--with-models", help="Also logged models of these runs that are not deleted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
) -> None:
    """Remove deleted runs and experiments for good, here and in the workspace, while the server serves.

    There, their files are removed and the runs stay as deleted ones: the workspace cannot do more.
    """
    request: dict[str, Any] = {
        "older_than_seconds": int(_parse_duration(older_than).total_seconds()),
        "run_ids": _split(run_ids),
        "experiment_ids": _split(experiment_ids),
        "discard_undelivered": discard_undelivered,
        "with_models": with_models,
        "dry_run": dry_run,
    }
    counts: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    kept_ids: list[dict[str, str]] = []
    after: int | None = 0
    told_at = time.monotonic()
    while after is not None:
        answer = ask("POST", "/gc", json={**request, "after": after}, patience=_PATIENCE_SECONDS)
        counts.update({name: answer[name] for name in ("runs", "experiments", "discarded_entries")})
        kept.update(answer["kept"])
        kept_ids += answer["kept_ids"]
        after = answer.get("next_after")
        if after is not None and time.monotonic() > told_at + _SECONDS_BETWEEN_LINES:
            told_at = time.monotonic()
            typer.echo(f"{counts['runs']} runs so far.", err=True)
    _tell(counts, kept, kept_ids, dry_run=dry_run)


def _tell(counts: Counter[str], kept: Counter[str], kept_ids: list[dict[str, str]], *, dry_run: bool) -> None:
    verb = "would be removed" if dry_run else "removed"
    say(f"{counts['runs']} runs and {counts['experiments']} experiments {verb}.")
    if counts["discarded_entries"]:
        say(f"{counts['discarded_entries']} undelivered entries were discarded with them.")
    for why, count in kept.items():
        say(f"{count} kept, because they {_WHY[why]}:")
        for item in [item for item in kept_ids if item["why"] == why][:10]:
            say(f"  {item['kind']} {item['id']}")


def _split(ids: str | None) -> list[str] | None:
    return None if ids is None else [id_.strip() for id_ in ids.split(",") if id_.strip()]


def _parse_duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        fail(f"{text!r} is not a duration. Write it as 30d, 12h or 1d12h30m.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
