"""Runs and experiments as Run History has them: the interface azureml-core speaks.

A PATCH creates the run under the id in the address or modifies the one that is there; it never makes a
second [C]. The experiment must exist: azureml-core creates it first [W]. What is written here is what
the MLflow facade reads, and the other way round.
"""

import json
import re
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from emulator import experiments, run_rows, search
from emulator.errors import EmptyAnswerError, JsonObject, ServiceError, invalid, missing
from emulator.store import Store
from emulator.tokens import RUN_AUDIENCE
from emulator.workspace import Call

MADE_BY = "history"
EVENT = "Microsoft.MachineLearning.Run."
STATUS_OF_EVENT = {
    "Start": "Running",
    "Queued": "Queued",
    "Completed": "Completed",
    "Failed": "Failed",
    "Canceled": "Canceled",
    "CancelRequested": "CancelRequested",
}
COLUMN_FIELDS = frozenset(
    {
        "runId",
        "parentRunId",
        "status",
        "startTimeUtc",
        "endTimeUtc",
        "name",
        "displayName",
        "properties",
        "tags",
    }
)
EMPTY_FIELDS = (
    "token",
    "tokenExpiryTimeUtc",
    "heartbeatEnabled",
    "options",
    "description",
    "runType",
    "runTypeV2",
    "scriptName",
    "target",
    "runDefinition",
    "primaryMetricName",
    "createdFrom",
    "cancelUri",
    "completeUri",
    "diagnosticsUri",
    "error",
    "warnings",
    "queueingInfo",
    "parentRunUuid",
    "rootRunUuid",
)
CLAUSE = re.compile(r"\(?\s*(\w+(?:/\w+)?)\s+(eq|ne)\s+('(?:[^']|'')*'|[^\s()]+)\s*\)?", re.IGNORECASE)


def create_experiment(call: Call) -> JsonObject:
    """By name; one that exists is answered as it is [?]."""
    name = call.path["experiment_name"]
    if experiments.find_by_name(call.store, name) is None:
        experiments.insert(call.store, name)
    return get_experiment(call)


def get_experiment(call: Call) -> JsonObject:
    """One, by name or id."""
    return describe_experiment(call.store, _experiment(call))


def update_experiment(call: Call) -> JsonObject:
    """Description, tags and archiving; the name stays [D]."""
    row = _experiment(call)
    if call.arguments.get("archive") is not None:
        experiments.move(
            call.store, row["experiment_id"], "deleted" if call.arguments["archive"] else "active"
        )
    if call.find_text("description") is not None:
        call.store.run(
            "UPDATE experiments SET description = ? WHERE experiment_id = ?",
            call.text("description"),
            row["experiment_id"],
        )
    for key, value in (call.arguments.get("tags") or {}).items():
        experiments.put_tag(call.store, row["experiment_id"], str(key), str(value))
    return get_experiment(call)


def query_experiments(call: Call) -> JsonObject:
    """Those that a filter leaves, newest first."""
    newest = time.time() - call.settings.search_lag_seconds
    rows = call.store.list("SELECT * FROM experiments WHERE arrived <= ? ORDER BY seq DESC", newest)
    found = [describe_experiment(call.store, row) for row in rows]
    return _page(call, [one for one in found if _matches(one, call.find_text("filter"))])


def patch_run(call: Call) -> JsonObject:
    """Create or modify one run."""
    refusal = call.settings.history_patch_status
    if refusal is not None:
        raise EmptyAnswerError(refusal)
    row = _create_or_modify(call, call.path["run_id"], call.arguments)
    return describe_run(call.store, row)


def patch_runs(call: Call) -> JsonObject:
    """Each run for itself: one that is refused does not stop the others [C: result model]."""
    refusal = call.settings.history_patch_status
    if refusal is not None:
        raise EmptyAnswerError(refusal)
    done: JsonObject = {}
    errors: JsonObject = {}
    for document in call.list("runs"):
        run_id = str(document.get("runId", ""))
        try:
            done[run_id] = describe_run(call.store, _create_or_modify(call, run_id, document))
        except ServiceError as error:
            errors[run_id] = {"error": {"code": error.code, "message": error.message}}
    return {"runs": done, "errors": errors}


def get_run(call: Call) -> JsonObject:
    """One run."""
    return describe_run(call.store, _run(call))


def get_run_details(call: Call) -> JsonObject:
    """What azureml-core calls the run's details."""
    run = describe_run(call.store, _run(call))
    fields = ("runId", "target", "status", "startTimeUtc", "endTimeUtc", "error", "warnings", "properties")
    nothing: JsonObject = {
        "services": {},
        "inputDatasets": [],
        "outputDatasets": [],
        "logFiles": {},
        "submittedBy": run["createdBy"]["userName"],
    }
    return {field: run[field] for field in fields} | {"runDefinition": run["runDefinition"]} | nothing


def list_children(call: Call) -> JsonObject:
    """Runs whose parent is this one."""
    return _runs_page(call, "parent_run_id = ?", call.path["run_id"])


def query_runs(call: Call) -> JsonObject:
    """OData filters of `eq` and `ne` joined by `and`: what azureml-core builds [C]."""
    return _runs_page(call, "experiment_id = ?", _experiment(call)["experiment_id"])


def delete_tags(call: Call) -> JsonObject:
    """Remove tags; those that are not there do not matter."""
    row = _run(call)
    for key in call.list("") or call.list("tags"):
        run_rows.delete_tag(call.store, row["run_id"], str(key))
    return describe_run(call.store, run_rows.get_row(call.store, row["run_id"]))


def post_event(call: Call) -> JsonObject:
    """One event of a run."""
    _apply_event(call, _run(call)["run_id"], call.arguments)
    return {}


def post_events(call: Call) -> JsonObject:
    """Each event for itself; errors come as key and value pairs [C]."""
    errors = []
    for event in call.list("events"):
        run_id = str((event.get("data") or {}).get("RunId", ""))
        try:
            _apply_event(call, run_rows.get_row(call.store, run_id)["run_id"], event)
        except ServiceError as error:
            errors.append({"key": event, "value": {"error": {"code": error.code, "message": error.message}}})
    return {"errors": errors}


def run_token(call: Call) -> JsonObject:
    """A token for the run's own data plane, not for ARM [C][W]; its lifetime is a guess [?]."""
    row = _run(call)
    seconds = call.settings.token_seconds
    token = call.workspace.tokens.issue(audience=RUN_AUDIENCE, seconds=seconds, run_id=row["run_id"])
    expiry = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
    return {"token": token, "expiryTimeUtc": expiry}


def ingest_wait(call: Call) -> JsonObject:
    """Points are stored before they are acknowledged, so there is never anything to wait for."""
    _run(call)
    return {}


def describe_experiment(store: Store, row: sqlite3.Row) -> JsonObject:
    """ExperimentDto [C]."""
    return {
        "experimentId": row["experiment_id"],
        "name": row["name"],
        "description": row["description"],
        "createdUtc": run_rows.iso(row["created_ms"]),
        "archivedTime": run_rows.iso(row["updated_ms"]) if row["lifecycle_stage"] == "deleted" else None,
        "tags": experiments.tags_of(store, row["experiment_id"]),
    }


def describe_run(store: Store, row: sqlite3.Row) -> JsonObject:
    """RunDto [C]."""
    run_id = row["run_id"]
    document = run_rows.document_of(row)
    nothing: JsonObject = dict.fromkeys(EMPTY_FIELDS)
    return (
        nothing
        | {"dataContainerId": f"dcid.{run_id}"}
        | {field: value for field, value in document.items() if value is not None}
        | {
            "runId": run_id,
            "runUuid": row["run_uuid"],
            "runNumber": row["run_number"],
            "parentRunId": row["parent_run_id"],
            "rootRunId": row["root_run_id"],
            "experimentId": row["experiment_id"],
            "createdUtc": run_rows.iso(row["created_ms"]),
            "userId": row["user_id"],
            "createdBy": {
                "userObjectId": "00000000-0000-0000-0000-0000000000e1",
                "userTenantId": "00000000-0000-0000-0000-0000000000e2",
                "userName": row["user_id"] or "emulator",
            },
            "status": row["status"],
            "startTimeUtc": run_rows.iso(row["start_ms"]),
            "endTimeUtc": run_rows.iso(row["end_ms"]),
            "name": document.get("name") or row["name"],
            "displayName": row["name"],
            "hidden": row["lifecycle_stage"] == "deleted",
            "properties": run_rows.values_of(store, "properties", run_id),
            "tags": run_rows.values_of(store, "tags", run_id),
        }
    )


def _create_or_modify(call: Call, run_id: str, document: JsonObject) -> sqlite3.Row:
    limits = call.settings.limits
    if not run_id or len(run_id) > limits.run_id_chars or document.get("runId") not in (None, run_id):
        raise ServiceError(400, f"Run id '{run_id}' is not valid.", code="ValidationError")
    experiment_id = _experiment_of_run(call, run_id)
    name = str(document.get("displayName") or document.get("name") or "")
    if len(name) > limits.display_name_chars:
        raise ServiceError(400, "The run's name is too long.", code="ValidationError")
    if run_rows.find_row(call.store, run_id) is None:
        _create(call, run_id, experiment_id, name, document)
    else:
        _modify(call, run_id, name, document)
    _keep_fields(call, run_id, document)
    return run_rows.get_row(call.store, run_id)


def _experiment_of_run(call: Call, run_id: str) -> str:
    """The experiment the address names must exist, and be the run's own if the run exists."""
    row = run_rows.find_row(call.store, run_id)
    if not {"experiment_name", "experiment_id"} & call.path.keys():
        if row is None:
            raise missing(f"Run with id={run_id} not found")
        return str(row["experiment_id"])
    experiment_id = str(_experiment(call)["experiment_id"])
    if row is not None and row["experiment_id"] != experiment_id:
        raise ServiceError(409, f"Run {run_id} belongs to another experiment.")
    return experiment_id


def _create(call: Call, run_id: str, experiment_id: str, name: str, document: JsonObject) -> None:
    experiments.get_active_row(call.store, experiment_id)
    run_rows.insert(
        call.store,
        run_id=run_id,
        experiment_id=experiment_id,
        name=name,
        user_id=str((document.get("tags") or {}).get("mlflow.user", "")),
        status=run_rows.check_history_status(str(document.get("status") or "NotStarted")),
        start_ms=run_rows.from_iso(document.get("startTimeUtc")),
        parent_run_id=document.get("parentRunId"),
        created_by=MADE_BY,
    )


def _modify(call: Call, run_id: str, name: str, document: JsonObject) -> None:
    if document.get("status"):
        status = run_rows.check_history_status(str(document["status"]))
        run_rows.set_status(call.store, run_id, status, MADE_BY)
    if name:
        run_rows.set_fields(call.store, run_id, name=name)
    if document.get("startTimeUtc"):
        run_rows.set_fields(call.store, run_id, start_ms=run_rows.from_iso(document["startTimeUtc"]))
    if document.get("parentRunId"):
        run_rows.set_fields(call.store, run_id, parent_run_id=str(document["parentRunId"]))


def _keep_fields(call: Call, run_id: str, document: JsonObject) -> None:
    """What create and modify store alike. `hidden` is how this service deletes a run [?]."""
    store, limits = call.store, call.settings.limits
    if document.get("endTimeUtc"):
        run_rows.set_fields(store, run_id, end_ms=run_rows.from_iso(document["endTimeUtc"]))
    if document.get("hidden") is not None:
        run_rows.set_fields(store, run_id, lifecycle_stage="deleted" if document["hidden"] else "active")
    run_rows.put_tags(store, limits, run_id, _texts(document.get("tags")))
    run_rows.put_properties(store, limits, run_id, _texts(document.get("properties")))
    known = run_rows.document_of(run_rows.get_row(store, run_id))
    rest = {
        field: value
        for field, value in document.items()
        if value is not None and field not in COLUMN_FIELDS and field != "hidden"
    }
    if document.get("name"):
        rest["name"] = document["name"]
    run_rows.set_fields(store, run_id, document=json.dumps(known | rest))


def _apply_event(call: Call, run_id: str, event: JsonObject) -> None:
    """Heartbeats, warnings and errors are kept; the others move the run."""
    name = str(event.get("name", ""))
    call.store.run(
        "INSERT INTO events VALUES (?, ?, ?, ?)", call.store.next_seq(), run_id, name, json.dumps(event)
    )
    status = STATUS_OF_EVENT.get(name.removeprefix(EVENT))
    if status is None:
        return
    run_rows.set_status(call.store, run_id, status, MADE_BY)
    data = event.get("data") or {}
    if data.get("StartTime"):
        run_rows.set_fields(call.store, run_id, start_ms=run_rows.from_iso(str(data["StartTime"])))
    if status in run_rows.TERMINAL:
        moment = run_rows.from_iso(str(data.get("EndTime") or event.get("timestamp") or ""))
        run_rows.set_fields(call.store, run_id, end_ms=moment or int(time.time() * 1000))


def _experiment(call: Call) -> sqlite3.Row:
    """By id, or by name; the name's place takes an id too [I]."""
    if "experiment_id" in call.path:
        return experiments.get_row(call.store, call.path["experiment_id"])
    name = call.path["experiment_name"]
    row = experiments.find_by_name(call.store, name) or experiments.find_row(call.store, name)
    if row is None:
        raise missing(f"Experiment {name} not found")
    return row


def _run(call: Call) -> sqlite3.Row:
    """The run, if it is in the experiment that the address names."""
    row = run_rows.get_row(call.store, call.path["run_id"])
    names_experiment = bool({"experiment_name", "experiment_id"} & call.path.keys())
    if names_experiment and _experiment(call)["experiment_id"] != row["experiment_id"]:
        raise missing(f"Run with id={row['run_id']} not found")
    return row


def _runs_page(call: Call, where: str, value: str) -> JsonObject:
    newest = time.time() - call.settings.search_lag_seconds
    rows = call.store.list(
        f"SELECT * FROM runs WHERE {where} AND arrived <= ?"
        " ORDER BY coalesce(start_ms, created_ms) DESC, seq DESC",
        value,
        newest,
    )
    text = call.find_text("filter") or call.find_text("$filter")
    found = [describe_run(call.store, row) for row in rows]
    return _page(call, [run for run in found if _matches(run, text)])


def _page(call: Call, items: list[JsonObject]) -> JsonObject:
    start = search.read_token(call.find_text("continuationToken") or call.find_text("$continuationToken"))
    size = call.number("top", call.number("$top", 500)) or 500
    token = search.make_token(start + size) if start + size < len(items) else None
    return {"value": items[start : start + size], "continuationToken": token, "nextLink": None}


def _matches(document: JsonObject, text: str | None) -> bool:
    """Every clause holds; a filter with anything else in it is refused."""
    if not text:
        return True
    rest = re.sub(r"\band\b", "", CLAUSE.sub("", text), flags=re.IGNORECASE).strip("() ")
    if rest:
        raise invalid(f"Filter not supported: {text}")
    comparisons: dict[str, Callable[[Any, Any], bool]] = {
        "eq": lambda left, right: str(left) == right,
        "ne": lambda left, right: str(left) != right,
    }
    return all(
        comparisons[operator.lower()](_field(document, name), value.strip("'"))
        for name, operator, value in CLAUSE.findall(text)
    )


def _field(document: JsonObject, name: str) -> Any:
    first, _, second = name.partition("/")
    value = document.get(first[:1].lower() + first[1:])
    return value.get(second) if second and isinstance(value, dict) else value


def _texts(values: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items() if value is not None}
