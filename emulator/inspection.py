"""What a test or a person may look at and change: `/emulator…`, without a token.

Everything is told with its `seq`, the order of arrival over the whole workspace. NaN and the infinities
are strings, as JSON has none.
"""

import json
import re
import sqlite3
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from emulator import artifacts, experiments, metrics, registry, run_rows, runs
from emulator.errors import JsonObject
from emulator.faults import Fault
from emulator.workspace import Workspace

STYLE = (
    "body{font:14px system-ui;margin:2rem;max-width:70rem}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884}code{font-size:12px}"
    ":root{color-scheme:light dark}"
)


def routes(workspace: Workspace) -> list[Route]:
    """Everything below `/emulator`."""
    seen, changed = Inspection(workspace), Administration(workspace)
    return [
        Route("/emulator", seen.page),
        Route("/emulator/experiments", seen.experiments),
        Route("/emulator/experiments/{experiment_id}", seen.experiment),
        Route("/emulator/runs", seen.runs),
        Route("/emulator/runs/{run_id}", seen.run),
        Route("/emulator/registered-models", seen.models),
        Route("/emulator/calls", seen.calls, methods=["GET"]),
        Route("/emulator/calls", changed.clear_calls, methods=["DELETE"]),
        Route("/emulator/calls/summary", seen.calls_summary),
        Route("/emulator/faults", changed.faults, methods=["GET"]),
        Route("/emulator/faults", changed.add_fault, methods=["POST"]),
        Route("/emulator/faults", changed.clear_faults, methods=["DELETE"]),
        Route("/emulator/faults/{fault_id}", changed.remove_fault, methods=["DELETE"]),
        Route("/emulator/tokens/revoke", changed.revoke_tokens, methods=["POST"]),
        Route("/emulator/settings", changed.settings, methods=["GET"]),
        Route("/emulator/settings", changed.change_settings, methods=["POST"]),
    ]


class Inspection:
    """Reads only."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._store = workspace.store

    async def experiments(self, request: Request) -> Response:
        """All experiments."""
        rows = self._store.list("SELECT * FROM experiments ORDER BY seq")
        return JSONResponse({"experiments": [self._experiment(row) for row in rows]})

    async def experiment(self, request: Request) -> Response:
        """One experiment."""
        row = experiments.find_row(self._store, request.path_params["experiment_id"])
        return _not_found() if row is None else JSONResponse(self._experiment(row))

    async def runs(self, request: Request) -> Response:
        """All runs in full."""
        rows = self._store.list("SELECT * FROM runs ORDER BY seq")
        return JSONResponse({"runs": [await self._run(row) for row in rows]})

    async def run(self, request: Request) -> Response:
        """One run in full."""
        row = run_rows.find_row(self._store, request.path_params["run_id"])
        return _not_found() if row is None else JSONResponse(await self._run(row))

    async def models(self, request: Request) -> Response:
        """All registered models with all their versions."""
        rows = self._store.list("SELECT * FROM models ORDER BY seq")
        return JSONResponse(
            {
                "registered_models": [
                    registry.describe_model(self._store, row)
                    | {"versions": registry.versions_of(self._store, row["name"]), "seq": row["seq"]}
                    for row in rows
                ]
            }
        )

    async def calls(self, request: Request) -> Response:
        """The log of calls."""
        since = int(request.query_params.get("since", "0"))
        return JSONResponse({"calls": self._workspace.calls.list(since)})

    async def calls_summary(self, request: Request) -> Response:
        """The log of calls, counted."""
        return JSONResponse({"counts": self._workspace.calls.count_by_template()})

    async def page(self, request: Request) -> Response:
        """The workspace on one page, for people."""
        rows = self._store.list(
            "SELECT r.*, e.name AS experiment,"
            " (SELECT coalesce(sum(rows), 0) FROM metric_names m WHERE m.run_id = r.run_id) AS points,"
            " (SELECT count(*) FROM params p WHERE p.run_id = r.run_id) AS params,"
            " (SELECT count(*) FROM artifacts a WHERE a.container = 'dcid.' || r.run_id) AS files"
            " FROM runs r JOIN experiments e USING (experiment_id) ORDER BY r.seq DESC LIMIT 200"
        )
        tables = ("experiments", "runs", "metrics", "params", "tags", "artifacts", "models", "model_versions")
        counts = [f"{self._store.count(f'SELECT count(*) FROM {table}')} {table}" for table in tables]
        body = "".join(
            f"<tr><td>{escape(row['experiment'])}</td><td>{escape(row['name'])}</td>"
            f"<td>{run_rows.TO_MLFLOW[row['status']]}</td><td>{row['points']}</td><td>{row['params']}</td>"
            f"<td>{row['files']}</td><td><a href='/emulator/runs/{escape(row['run_id'])}'>"
            f"<code>{escape(row['run_id'])}</code></a></td></tr>"
            for row in rows
        )
        names = ", ".join(sorted(self._workspace.names))
        return HTMLResponse(
            f"<!doctype html><title>Emulated workspace</title><style>{STYLE}</style>"
            f"<h1>Emulated Azure ML workspace: {escape(names)}</h1><p>{', '.join(counts)}.</p>"
            "<p>JSON: <a href='/emulator/runs'>runs</a> <a href='/emulator/experiments'>experiments</a> "
            "<a href='/emulator/registered-models'>models</a> <a href='/emulator/calls'>calls</a> "
            "<a href='/emulator/calls/summary'>calls by kind</a> <a href='/emulator/faults'>faults</a> "
            "<a href='/emulator/settings'>settings</a></p>"
            "<table><tr><th>Experiment</th><th>Run</th><th>Status</th><th>Points</th><th>Params</th>"
            f"<th>Files</th><th>Id</th></tr>{body}</table>"
        )

    def _experiment(self, row: sqlite3.Row) -> JsonObject:
        return {
            "experiment_id": row["experiment_id"],
            "name": row["name"],
            "lifecycle_stage": row["lifecycle_stage"],
            "description": row["description"],
            "creation_time": row["created_ms"],
            "tags": experiments.tags_of(self._store, row["experiment_id"]),
            "runs": self._store.count(
                "SELECT count(*) FROM runs WHERE experiment_id = ?", row["experiment_id"]
            ),
            "seq": row["seq"],
        }

    async def _run(self, row: sqlite3.Row) -> JsonObject:
        store, run_id = self._store, row["run_id"]
        changes = [self._status_change(change) for change in self._status_rows(run_id)]
        ends = [change["seq"] for change in changes if change["history_status"] in run_rows.TERMINAL]
        is_ended = row["status"] in run_rows.TERMINAL
        return {
            "run_id": run_id,
            "run_number": row["run_number"],
            "experiment_id": row["experiment_id"],
            "experiment_name": experiments.get_row(store, row["experiment_id"])["name"],
            "name": row["name"],
            "user_id": row["user_id"],
            "status": run_rows.TO_MLFLOW[row["status"]],
            "history_status": row["status"],
            "start_time": row["start_ms"],
            "end_time": row["end_ms"],
            "lifecycle_stage": row["lifecycle_stage"],
            "parent_run_id": row["parent_run_id"],
            "root_run_id": row["root_run_id"],
            "created_by": row["created_by"],
            "seq": row["seq"],
            "params": run_rows.values_of(store, "params", run_id),
            "tags": run_rows.values_of(store, "tags", run_id),
            "properties": run_rows.values_of(store, "properties", run_id),
            "param_seqs": self._seqs("params", run_id),
            "tag_seqs": self._seqs("tags", run_id),
            "history_fields": run_rows.document_of(row),
            "inputs": [json.loads(found["document"]) for found in runs.inputs_of(store, run_id)],
            "metrics": self._metrics(run_id),
            "events": self._events(run_id),
            "artifacts": await self._artifacts(run_id),
            "status_changes": changes,
            "seq_of_terminal": ends[-1] if ends and is_ended else None,
        }

    def _metrics(self, run_id: str) -> list[JsonObject]:
        rows = self._store.list("SELECT * FROM metrics WHERE run_id = ? ORDER BY seq", run_id)
        return [metrics.describe(row) | {"seq": row["seq"]} | _record(row) for row in rows]

    def _events(self, run_id: str) -> list[JsonObject]:
        rows = self._store.list("SELECT seq, name FROM events WHERE run_id = ? ORDER BY seq", run_id)
        return [{"name": row["name"], "seq": row["seq"]} for row in rows]

    def _seqs(self, table: str, run_id: str) -> dict[str, int]:
        rows = self._store.list(f"SELECT key, seq FROM {table} WHERE run_id = ? ORDER BY seq", run_id)
        return {row["key"]: row["seq"] for row in rows}

    async def _artifacts(self, run_id: str) -> list[JsonObject]:
        """Size and digests are null where the path was reserved and no bytes arrived."""
        described = []
        for row in artifacts.rows_of_run(self._store, run_id):
            facts = await self._workspace.blobs.find_facts(row["relative_path"])
            blob = self._store.find("SELECT seq FROM blobs WHERE name = ?", row["relative_path"])
            described.append(
                {
                    "path": row["path"],
                    "size": facts.size if facts else None,
                    "md5": facts.md5 if facts else None,
                    "sha256": facts.sha256 if facts else None,
                    "seq": row["seq"],
                    "content_seq": blob["seq"] if blob else None,
                }
            )
        return described

    def _status_rows(self, run_id: str) -> list[sqlite3.Row]:
        return self._store.list("SELECT * FROM status_changes WHERE run_id = ? ORDER BY seq", run_id)

    def _status_change(self, row: sqlite3.Row) -> JsonObject:
        return {
            "seq": row["seq"],
            "status": run_rows.TO_MLFLOW[row["status"]],
            "history_status": row["status"],
            "made_by": row["made_by"],
            "time": row["time"],
        }


class Administration:
    """Makes the emulator misbehave, or behave differently."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def faults(self, request: Request) -> Response:
        """Those in force."""
        return JSONResponse({"faults": self._workspace.faults.list()})

    async def add_fault(self, request: Request) -> Response:
        """Add one."""
        try:
            fault = Fault.from_json(await request.json())
        except (TypeError, ValueError, re.error) as error:
            return _refused(error)
        self._workspace.faults.add(fault)
        return JSONResponse({"fault_id": fault.fault_id})

    async def clear_faults(self, request: Request) -> Response:
        """Remove all."""
        self._workspace.faults.clear()
        return JSONResponse({})

    async def remove_fault(self, request: Request) -> Response:
        """Remove one."""
        is_removed = self._workspace.faults.remove(request.path_params["fault_id"])
        return JSONResponse({}) if is_removed else _not_found()

    async def clear_calls(self, request: Request) -> Response:
        """Forget the log of calls."""
        self._workspace.calls.clear()
        return JSONResponse({})

    async def revoke_tokens(self, request: Request) -> Response:
        """Refuse every token issued so far."""
        self._workspace.tokens.revoke_all()
        return JSONResponse({})

    async def settings(self, request: Request) -> Response:
        """All settings."""
        return JSONResponse(self._workspace.settings.as_json())

    async def change_settings(self, request: Request) -> Response:
        """Change the settings named, leave the others."""
        try:
            self._workspace.change_settings(await request.json())
        except (KeyError, TypeError, ValueError) as error:
            return _refused(error)
        return JSONResponse(self._workspace.settings.as_json())


def _record(row: sqlite3.Row) -> JsonObject:
    """The row as Run History sent it, where it came that way."""
    return {"record": json.loads(row["record"])} if row["record"] else {}


def _not_found() -> Response:
    return JSONResponse({"error": "not found"}, 404)


def _refused(error: Any) -> Response:
    return JSONResponse({"error": str(error)}, 400)
