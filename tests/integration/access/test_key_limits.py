"""Where a limited key could be led around its limit: names, sources, files, logins, links."""

import pytest

from server.api.reach import _TABLE, route_key
from server.domain.name_patterns import NamePatterns
from tests.integration.access.team import (
    MINE,
    MLFLOW,
    MLFLOW_3,
    OWN_MODEL,
    THEIR_MODEL,
    THEIRS,
    Json,
    Team,
    make_key,
    send,
    trace_of,
)
from tests.support.tracing import new_id, request, span

POINT = {"key": "loss", "value": 1.0, "timestamp": 9, "step": 9}


def status(team: Team, method: str, path: str, **request: object) -> int:
    """The status of an answer to the limited key."""
    return team.ask(method, path, **request).status_code


def names_found(team: Team, key: str) -> list[str]:
    """The experiments that a search shows to a key."""
    answer = team.ask("POST", f"{MLFLOW}/experiments/search", key=key, json={"max_results": 1000})
    return sorted(item["name"] for item in answer.json().get("experiments", []))


def test_a_search_shows_only_experiments_of_the_names(team: Team) -> None:
    """By each pattern as `NamePatterns` reads it, page by page, with and without a filter."""
    names = ["a%b/x", "aXb/x", "A%B/x", "a_b/x", "q[1]/x", "q1/x", "w?/x", "wz/x", "b\\c/x", "plain"]
    for name in names:
        team.admin("POST", f"{MLFLOW}/experiments/create", json={"name": name})
    for number, patterns in enumerate(
        [["a%b/*"], ["a_b/*"], ["q[1]/*"], ["w?/*"], ["b\\c/*"], ["*/x"], ["plain"], ["pl*n", "q*"], ["*"]]
    ):
        key = make_key(team.server, team.runner, f"searcher {number}", role="read", experiments=patterns)
        every = [*names, "Default", MINE, THEIRS]
        assert names_found(team, key) == sorted(filter(NamePatterns(tuple(patterns)).matches, every))
    first = team.ask(
        "GET", f"{MLFLOW}/experiments/search", params={"max_results": 1, "filter": "name LIKE '%'"}
    )
    assert [item["name"] for item in first.json()["experiments"]] == [MINE]
    assert "next_page_token" not in first.json()


def test_the_list_of_deliveries_shows_its_own_runs(team: Team) -> None:
    """`/sync` of a limited key: its own runs, on every page."""
    found = team.ask("GET", "/api/2.0/mlproxy/runs", params={"state": "all", "max_results": 50}).json()[
        "runs"
    ]
    assert {run["experiment_name"] for run in found} == {MINE}
    everyone = make_key(team.server, team.runner, "onlooker", role="read")
    shown = team.ask("GET", "/api/2.0/mlproxy/runs", key=everyone, params={"state": "all"}).json()["runs"]
    assert {MINE, THEIRS} <= {run["experiment_name"] for run in shown}


def test_names_outside_can_be_neither_made_nor_taken(team: Team) -> None:
    """An experiment is made and renamed only within the patterns; a run goes into no other's, nor Default."""
    assert status(team, "POST", f"{MLFLOW}/experiments/create", json={"name": "team-b/new"}) == 403
    rename = {"experiment_id": team.mine.experiment, "new_name": "team-b/taken"}
    assert status(team, "POST", f"{MLFLOW}/experiments/update", json=rename) == 403
    assert status(team, "POST", f"{MLFLOW}/runs/create", json={"start_time": 1}) == 403
    made = team.ask("POST", f"{MLFLOW}/experiments/create", json={"name": "team-a/new"})
    assert made.status_code == 200
    renamed = {"experiment_id": made.json()["experiment_id"], "new_name": "shared"}
    assert status(team, "POST", f"{MLFLOW}/experiments/update", json=renamed) == 200


def test_the_present_name_decides(team: Team) -> None:
    """An experiment that is renamed is open, or closed, from then on."""
    get = ("GET", f"{MLFLOW}/runs/get")
    seen = []
    for new_name in ("team-b/moved", MINE):
        body = {"experiment_id": team.mine.experiment, "new_name": new_name}
        team.admin("POST", f"{MLFLOW}/experiments/update", json=body)
        seen.append(status(team, *get, params={"run_id": team.mine.run}))
    assert seen == [403, 200]


@pytest.mark.parametrize(
    "source",
    [
        "runs:/{run}/model",
        "mlflow-artifacts:/{experiment}/{run}/artifacts/model",
        "models:/{model}",
        f"models:/{THEIR_MODEL}/1",
        "s3://bucket/model",
    ],
)
def test_no_version_is_made_from_what_is_theirs(team: Team, source: str) -> None:
    """Whatever spelling names the source; nor from a place that belongs to no experiment."""
    theirs = team.theirs
    named = source.format(run=theirs.run, experiment=theirs.experiment, model=theirs.model)
    body = {"name": OWN_MODEL, "source": named}
    assert status(team, "POST", f"{MLFLOW}/model-versions/create", json=body) == 403


@pytest.mark.parametrize(
    "path", ["", "{experiment}", "{experiment}/{run}", "{experiment}/models/{model}/artifacts", "elsewhere/x"]
)
def test_folders_of_others_and_of_nobody_are_closed(team: Team, path: str) -> None:
    """What all have in common is nobody's, and is not listed either."""
    theirs = team.theirs
    folder = path.format(experiment=theirs.experiment, run=theirs.run, model=theirs.model)
    params = {"path": folder} if folder else {}
    assert status(team, "GET", "/api/2.0/mlflow-artifacts/artifacts", params=params) == 403
    assert status(team, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{folder}/f", content=b"1") in (400, 403)


def test_a_folder_in_anothers_run_is_that_runs(team: Team) -> None:
    """An experiment of its own whose location lies in their run does not open the run's files."""
    inside = f"{team.theirs.experiment}/{team.theirs.run}/artifacts/model"
    made = team.ask(
        "POST",
        f"{MLFLOW}/experiments/create",
        json={"name": "team-a/inside", "artifact_location": f"mlflow-artifacts:/{inside}"},
    )
    body = {"experiment_id": made.json()["experiment_id"], "start_time": 1}
    run = team.ask("POST", f"{MLFLOW}/runs/create", json=body).json()["run"]["info"]
    path = f"{inside}/{run['run_id']}/artifacts/f"
    assert status(team, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=b"1") == 403
    assert status(team, "GET", f"/api/2.0/mlflow-artifacts/artifacts/{inside}/MLmodel") == 403


def test_a_trace_cannot_point_to_their_files(team: Team) -> None:
    """Where a trace's files are is a tag, but what a client says there opens no file of others."""
    folder = f"{team.theirs.experiment}/{team.theirs.run}/artifacts"
    admin = make_key(team.server, team.runner, "uploader", role="write")
    file = f"/api/2.0/mlflow-artifacts/artifacts/{folder}/attachments/x"
    assert team.ask("PUT", file, key=admin, content=b"secret").status_code == 200
    trace: Json = trace_of(team.mine.experiment, "tr-pointing")
    trace["trace"]["trace_info"]["tags"] = {"mlflow.artifactLocation": f"mlflow-artifacts:/{folder}"}
    assert status(team, "POST", f"{MLFLOW_3}/traces", json=trace) == 200
    tag = [{"key": "mlflow.artifactLocation", "value": f"mlflow-artifacts:/{folder}"}]
    old = {"experiment_id": team.mine.experiment, "timestamp_ms": 1, "tags": tag}
    started = team.ask("POST", f"{MLFLOW}/traces", json=old).json()["trace_info"]["request_id"]
    for trace_id in ("tr-pointing", started):
        request = {"request_id": trace_id, "path": "x"}
        assert status(team, "GET", "/ajax-api/2.0/mlflow/get-trace-artifact", params=request) in (403, 404)


def test_a_trace_whose_folder_lies_in_their_run_has_no_files(team: Team) -> None:
    """The location of an experiment is free text; its traces' files are judged by where they are."""
    folder = f"{team.theirs.experiment}/{team.theirs.run}/artifacts"
    body = {"name": "team-a/elsewhere", "artifact_location": f"mlflow-artifacts:/{folder}"}
    experiment = team.ask("POST", f"{MLFLOW}/experiments/create", json=body).json()["experiment_id"]
    assert status(team, "POST", f"{MLFLOW_3}/traces", json=trace_of(experiment, "tr-elsewhere")) == 200
    request = {"request_id": "tr-elsewhere", "path": "x"}
    assert status(team, "GET", "/ajax-api/2.0/mlflow/get-trace-artifact", params=request) == 403


def test_a_point_of_their_logged_model_is_refused(team: Team) -> None:
    """In its own run, one point at a time and in a batch, or linked as what the run used."""
    run, model = {"run_id": team.mine.run}, {"model_id": team.theirs.model}
    assert status(team, "POST", f"{MLFLOW}/runs/log-metric", json={**run, **POINT, **model}) == 403
    batch = {**run, "metrics": [POINT, {**POINT, **model}]}
    assert status(team, "POST", f"{MLFLOW}/runs/log-batch", json=batch) == 403
    assert status(team, "POST", f"{MLFLOW}/runs/log-inputs", json={**run, "models": [model]}) == 403


def test_one_of_theirs_among_its_own_is_refused(team: Team) -> None:
    """A list is judged item by item."""
    ids = [team.mine.experiment, team.theirs.experiment]
    assert status(team, "POST", f"{MLFLOW}/runs/search", json={"experiment_ids": ids}) == 403
    runs = {"run_id": [team.mine.run, team.theirs.run], "metric_key": "loss"}
    assert status(team, "GET", f"{MLFLOW}/metrics/get-history-bulk", params=runs) == 403
    links = {"trace_ids": [team.mine.trace, team.theirs.trace], "run_id": team.mine.run}
    assert status(team, "POST", f"{MLFLOW}/traces/link-to-run", json=links) == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/3.0/mlflow/datasets/search"),
        ("GET", "/api/3.0/mlflow/scorers/list"),
        ("POST", "/api/3.0/mlflow/datasets/create"),
    ],
)
def test_all_experiments_must_not_be_meant(team: Team, method: str, path: str) -> None:
    """Where naming none would mean every one, a limited key has to name some."""
    answer = team.ask(method, path, **({"params": {}} if method == "GET" else {"json": {"name": "x"}}))
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_spans_are_judged_by_experiment_and_by_trace(team: Team) -> None:
    """The header names the experiment; a trace that is theirs is not written to from its own."""
    own, theirs, trace_id = team.mine.experiment, team.theirs.experiment, new_id()
    assert _export(team, team.key, own, new_id()) == 200
    assert _export(team, team.key, theirs, new_id()) == 403
    unlimited = make_key(team.server, team.runner, "exporter", role="write")
    assert _export(team, unlimited, theirs, trace_id) == 200
    assert _export(team, team.key, own, trace_id) == 403


def _export(team: Team, key: str, experiment: str, trace_id: str) -> int:
    headers = {"x-mlflow-experiment-id": experiment}
    body = request(span(trace_id))
    return team.ask("POST", "/v1/traces", key=key, json=body, headers=headers).status_code


CLOSED = sorted(key for key, reach in _TABLE.items() if reach is None)


@pytest.mark.parametrize("entry", CLOSED)
def test_what_concerns_everyone_is_closed(team: Team, entry: str) -> None:
    """Changing the registry as such is not for a limited key."""
    method, _, path = entry.partition(" ")
    full = f"/api/{path}"
    assert route_key(method, full) == entry
    assert status(team, method, full, json={"name": OWN_MODEL}) == 403


def test_the_catalogue_of_models_is_open(team: Team) -> None:
    """What is registered may be seen by everyone; their files may not be fetched."""
    found = team.ask("GET", f"{MLFLOW}/model-versions/get", params={"name": THEIR_MODEL, "version": "1"})
    assert found.json()["model_version"]["run_id"] == team.theirs.run
    assert status(team, "POST", f"{MLFLOW}/registered-models/create", json={"name": "one more"}) == 200


def test_a_login_is_limited_as_its_key_is(team: Team) -> None:
    """A browser that logs in with a limited key sees what the key sees."""
    login = team.runner.run(send(team.server.door, "POST", "/login", json={"key": team.key}))
    cookie = login.headers["set-cookie"].partition(";")[0]
    seen = [
        team.runner.run(
            send(
                team.server.door,
                "GET",
                f"{MLFLOW}/runs/get",
                params={"run_id": side.run},
                headers={"Cookie": cookie},
            )
        ).status_code
        for side in (team.mine, team.theirs)
    ]
    assert seen == [200, 403]


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "admin", "experiments": ["team-a/*"]},
        {"role": "read", "experiments": [""]},
        {"role": "read", "experiments": ["x" * 501]},
        {"role": "read", "experiments": ["x"] * 101},
        {"role": "read", "expires_in_days": 0},
    ],
    ids=["admin", "empty pattern", "long pattern", "many patterns", "no days"],
)
def test_keys_that_make_no_sense_are_refused(team: Team, fields: Json) -> None:
    """An admin's limit would limit nothing: they could make themselves another key."""
    answer = team.runner.run(
        send(team.server.admin_door, "POST", "/api/2.0/mlproxy/keys", json={"name": "odd", **fields})
    )
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
