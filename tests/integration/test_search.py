"""Searches over rows in a real SQLite file and a real Postgres: the same ids in the same order."""

import pytest
from sqlalchemy import create_engine, insert

from server.database import schema
from server.domain.entities import ViewType
from server.protocol.search import (
    LoggedModelOrderBy,
    parse_experiment_filter,
    parse_experiment_order,
    parse_logged_model_datasets,
    parse_logged_model_filter,
    parse_logged_model_order,
    parse_model_version_filter,
    parse_model_version_order,
    parse_registered_model_filter,
    parse_registered_model_order,
    parse_run_filter,
    parse_run_order,
)
from server.store.search import (
    find_experiments,
    find_logged_models,
    find_model_versions,
    find_registered_models,
    find_runs,
)

NAN = "NaN"

# run_pk: name, status, start, end, stage, metrics, params, tags. Run ids count down as keys count up.
RUNS = {
    1: (
        "alpha",
        "FINISHED",
        300,
        400,
        "active",
        {"m": 1.0, "f/1": 5.0},
        {"p": "abc", "q": "2"},
        {"t": "x_y"},
    ),
    2: ("Alpha", "RUNNING", 200, None, "active", {"m": -2.5}, {"p": "ABC", "q": "10"}, {"t": "xzy"}),
    3: ("beta", "RUNNING", 200, 500, "active", {"m": NAN}, {"p": ""}, {}),
    4: ("gamma", "FAILED", None, 600, "active", {}, {}, {"t": "X_Y", "k y": "1"}),
    5: ("delta", "FINISHED", 100, 150, "deleted", {"m": 0.0}, {"p": "a%c[*?]"}, {}),
    6: ("other", "FINISHED", 900, 950, "active", {"m": 7.0}, {"p": "abc"}, {"t": "x_y"}),
}
OTHER_EXPERIMENT = 6
RUN_IDS = {key: f"{9 - key}" * 32 for key in RUNS}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request, make_database):
    """A connection to a database that holds the rows of this module."""
    engine = create_engine(make_database(request.param))
    schema.metadata.create_all(engine)
    with engine.begin() as connection:
        fill(connection)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 3, 2, 4]),
        ("metrics.m > -3", [1, 2]),
        ("metrics.m = 0", []),
        ("metrics.m != 1", [3, 2]),
        ("metrics.`f/1` >= 5.0", [1]),
        ("params.p = 'abc'", [1]),
        ("params.p != 'abc'", [3, 2]),
        ("params.p LIKE 'a%'", [1]),
        ("params.p ILIKE 'a%'", [1, 2]),
        ("params.p = ''", [3]),
        ("params.p IS NULL", [4]),
        ("params.p IS NOT NULL AND tags.t IS NULL", [3]),
        ("tags.t LIKE 'x_y'", [1, 2]),
        ("tags.t ILIKE 'X_Y'", [1, 2, 4]),
        ("tags.`k y` = '1'", [4]),
        ("tags.t LIKE 'x\\_y'", []),
        ("status = 'RUNNING'", [3, 2]),
        ("status != 'RUNNING' AND end_time < 500.5", [1]),
        ("start_time >= 200 AND start_time < 300", [3, 2]),
        ("end_time != 400", [3, 4]),
        ("start_time > 199.9 AND start_time < 200.1", [3, 2]),
        ("run_name = 'alpha'", [1]),
        ("`run name` ILIKE 'ALPH_'", [1, 2]),
        (f"run_id IN ('{RUN_IDS[1]}', '{RUN_IDS[4]}', 'x')", [1, 4]),
        (f"run_id NOT IN ('{RUN_IDS[1]}')", [3, 2, 4]),
        ("dataset.name = 'train'", [1, 2]),
        ("dataset.name LIKE 'T%'", []),
        ("dataset.name IN ('eval')", [1]),
        ("dataset.name = 'train' AND dataset.name = 'eval'", [1]),
        ("dataset.context = 'training'", [1]),
        ("dataset.context != 'training'", [2]),
        ("dataset.digest ILIKE 'D1' AND dataset.context ILIKE 'V%'", [2]),
        ("metrics.m < 1e999", [1, 2]),
    ],
)
def test_finds_runs_by_filter(database, text, expected):
    """Every kind of condition picks the runs MLflow would, latest start first."""
    assert runs_found(database, text) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["metrics.m"], [2, 1, 3, 4]),
        (["metrics.m DESC"], [1, 2, 3, 4]),
        (["start_time"], [3, 2, 1, 4]),
        (["start_time DESC"], [1, 3, 2, 4]),
        (["end_time DESC"], [4, 3, 1, 2]),
        (["params.q"], [2, 1, 3, 4]),
        (["params.q DESC"], [1, 2, 3, 4]),
        (["status", "run_id DESC"], [4, 1, 2, 3]),
        (["tags.`k y`", "metrics.`f/1` DESC"], [4, 1, 3, 2]),
        (["run_id"], [4, 3, 2, 1]),
    ],
)
def test_sorts_runs(database, order, expected):
    """Missing values come last in either direction, NaN before them, ties by start and run id."""
    assert runs_found(database, "", order=order) == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (ViewType.ACTIVE_ONLY, [1, 3, 2, 4]),
        (ViewType.DELETED_ONLY, [5]),
        (ViewType.ALL, [1, 3, 2, 5, 4]),
    ],
)
def test_shows_the_lifecycle_stages_of_the_view(database, view, expected):
    """Deleted runs show only where they are asked for."""
    assert runs_found(database, "", view=view) == expected


def test_searches_the_experiments_asked_for(database):
    """No experiment is no run, and several are searched as one."""
    assert runs_found(database, "", experiment_ids=[]) == []
    assert runs_found(database, "params.p = 'abc'", experiment_ids=[1, 2]) == [6, 1]


def test_special_characters_of_other_pattern_languages_are_plain(database):
    """Only % and _ are special in LIKE, on either database."""
    for pattern in ("a_c[*?]", "%[*?]", "%*?%"):
        assert runs_found(database, f"params.p LIKE '{pattern}'", view=ViewType.ALL) == [5]
    for pattern in ("a*", "a?c[*?]x", "[a]%"):
        assert runs_found(database, f"params.p LIKE '{pattern}'", view=ViewType.ALL) == []


def test_pages_join_without_gap_or_overlap(database):
    """Reading page by page gives what one large page gives, and the last page says so."""
    pages = [run_page(database, "", offset=offset, limit=3) for offset in (0, 3, 6)]
    assert pages == [([1, 3, 2], True), ([4], False), ([], False)]


def test_values_that_begin_alike_are_told_apart(database):
    """What the index holds of a value is its beginning; the rest counts as well, in names and tags too."""
    alike = "x" * 64
    with database.begin_nested() as savepoint:
        add(database, schema.params, [{"run_pk": 1, "key": "long", "value": alike + "a"}])
        add(database, schema.params, [{"run_pk": 2, "key": "long", "value": alike + "b"}])
        add(database, schema.tags, [{"run_pk": 3, "key": "long", "value": alike}])
        assert runs_found(database, f"params.long = '{alike}a'") == [1]
        assert runs_found(database, f"params.long = '{alike}'") == []
        assert runs_found(database, f"params.long = '{alike}a' AND params.p = 'ABC'") == []
        assert runs_found(database, f"tags.long = '{alike}'") == [3]
        assert runs_found(database, f"run_name = 'Alpha{alike}'") == []
        savepoint.rollback()


def test_few_runs_are_looked_up_only_in_the_experiments_asked_for(database):
    """What another experiment's run holds, or a deleted run's, finds it only where it is asked for."""
    assert runs_found(database, "run_name = 'other'") == []
    assert runs_found(database, "run_name = 'other'", experiment_ids=[2]) == [6]
    assert runs_found(database, "run_name = 'delta'") == []
    assert runs_found(database, "run_name = 'delta'", view=ViewType.ALL) == [5]


@pytest.mark.parametrize("order", [["metrics.m"], ["metrics.m DESC", "params.p"]])
def test_a_key_that_is_filtered_and_sorted_by_is_both(database, order):
    """One look at a run's row serves the condition and the order, NaN and missing values as ever."""
    found = runs_found(database, "metrics.m != 5 AND params.p IS NOT NULL", order=order)
    assert found == ([2, 1, 3] if len(order) == 1 else [1, 2, 3])


def test_the_largest_search_allowed_still_runs(database):
    """Two hundred conditions and thirty sort keys are within what both databases take."""
    text = " AND ".join([f"params.p{i} IS NULL" for i in range(199)] + ["metrics.m != 5"])
    order = [f"metrics.m{i} DESC" for i in range(30)]
    assert runs_found(database, text, order=order) == [1, 3, 2]


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("", [], [3, 1, 2]),
        ("", ["name"], [1, 2, 3]),
        ("", ["last_update_time"], [1, 3, 2]),
        ("name LIKE 'a%'", [], [1, 2]),
        ("name ILIKE 'A%' AND creation_time >= 100", ["name DESC"], [2, 1]),
        ("experiment_id IN ('1', '3')", [], [3, 1]),
        ("experiment_id != '1'", [], [3, 2]),
        ("tags.team = 'red'", [], [1]),
        ("tags.team ILIKE 'RED'", [], [1, 2]),
        ("tags.team IS NULL", [], [3]),
        ("tags.team IS NOT NULL AND last_update_time > 10", [], [2]),
    ],
)
def test_finds_experiments(database, text, order, expected):
    """Experiments are found by name, times, id and tags; the newest come first."""
    found, has_more = find_experiments(
        database,
        view=ViewType.ACTIVE_ONLY,
        filters=parse_experiment_filter(text),
        order=parse_experiment_order(order),
        offset=0,
        limit=10,
    )
    assert (found, has_more) == (expected, False)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("", [], [3, 1, 2]),
        ("", ["name DESC"], [2, 1, 3]),
        ("", ["timestamp"], [2, 3, 1]),
        ("name LIKE 'm%'", [], [1, 2]),
        ("name IN ('m1', 'ask')", [], [1]),
        ("tags.t = 'x'", [], [3, 1]),
        ("tags.t != 'x'", [], [2]),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", [], [4]),
        ("tags.`mlflow.prompt.is_prompt` != 'true'", [], [3, 1, 2]),
        ("tags.`mlflow.prompt.is_prompt` = 'false' AND tags.t = 'x'", [], [3, 1]),
    ],
)
def test_finds_registered_models(database, text, order, expected):
    """Registered models go by name; prompts show only where they are asked for."""
    found, has_more = find_registered_models(
        database,
        filters=parse_registered_model_filter(text),
        order=parse_registered_model_order(order),
        offset=0,
        limit=10,
    )
    assert (found, has_more) == (expected, False)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("", [], [(2, 1), (1, 2), (1, 1)]),
        ("", ["version_number"], [(1, 1), (2, 1), (1, 2)]),
        ("", ["creation_timestamp DESC"], [(1, 1), (1, 2), (2, 1)]),
        ("name = 'm1'", [], [(1, 2), (1, 1)]),
        ("name IN ('m2', 'm9')", [], [(2, 1)]),
        ("version_number > 1", [], [(1, 2)]),
        ("version_number < '99999999999'", ["name", "version_number"], [(1, 1), (1, 2), (2, 1)]),
        ("run_id = 'r1'", [], [(1, 1)]),
        ("run_id != 'r1'", [], [(2, 1)]),
        ("source_path LIKE 's3%'", [], [(1, 2)]),
        ("tags.t = 'x'", [], [(1, 2)]),
        ("tags.`mlflow.prompt.is_prompt` = 'true'", [], [(4, 1)]),
    ],
)
def test_finds_model_versions(database, text, order, expected):
    """Versions come latest update first, without deleted ones and, unasked, without prompts."""
    found, has_more = find_model_versions(
        database,
        filters=parse_model_version_filter(text),
        order=parse_model_version_order(order),
        offset=0,
        limit=10,
    )
    assert (found, has_more) == (expected, False)


@pytest.mark.parametrize(
    ("text", "datasets", "order", "expected"),
    [
        ("", [], [], [3, 1, 2]),
        ("name = 'one'", [], [], [1]),
        ("status = 'READY'", [], [], [3, 1]),
        ("status != 'LOGGED_MODEL_READY'", [], [], [2]),
        ("model_type ILIKE 'AGENT'", [], [], [2]),
        ("creation_timestamp >= 20", [], [], [3]),
        ("source_run_id IN ('r1')", [], [], [1]),
        ("params.lr = 0.1 AND tags.t LIKE 'x%'", [], [], [1]),
        ("metrics.m > 1", [], [], [1, 2]),
        ("metrics.m != 2", [], [], [3, 1]),
        ("metrics.m > 1", [("train", None)], [], [2]),
        ("", [("train", None)], [], [1, 2]),
        ("", [("train", "d1"), ("none", None)], [], [1]),
        ("", [], [LoggedModelOrderBy("metrics.m")], [1, 2, 3]),
        ("", [], [LoggedModelOrderBy("metrics.m", ascending=False)], [2, 1, 3]),
        ("", [], [LoggedModelOrderBy("metrics.m", dataset_name="train", dataset_digest="d2")], [2, 3, 1]),
        ("", [], [LoggedModelOrderBy("model_type"), LoggedModelOrderBy("name")], [2, 1, 3]),
    ],
)
def test_finds_logged_models(database, text, datasets, order, expected):
    """A condition on a metric looks at every point, an order at the latest, both on the datasets asked."""
    found, has_more = find_logged_models(
        database,
        experiment_ids=[1],
        filters=parse_logged_model_filter(text),
        datasets=parse_logged_model_datasets(datasets),
        order=parse_logged_model_order(order),
        offset=0,
        limit=10,
    )
    assert (found, has_more) == (expected, False)


def runs_found(connection, text, **options):
    """All runs a search finds."""
    found, has_more = run_page(connection, text, **options)
    assert not has_more
    return found


def run_page(
    connection, text, *, order=(), view=ViewType.ACTIVE_ONLY, experiment_ids=(1,), offset=0, limit=50
):
    """One page of a runs search."""
    return find_runs(
        connection,
        experiment_ids=list(experiment_ids),
        view=view,
        filters=parse_run_filter(text),
        order=parse_run_order(order),
        offset=offset,
        limit=limit,
    )


def fill(connection):
    """Write the rows of this module."""
    add(connection, schema.experiments, [experiment(*row) for row in EXPERIMENTS])
    add(connection, schema.experiment_tags, keyed("experiment_id", {1: {"team": "red"}, 2: {"team": "Red"}}))
    fill_runs(connection)
    fill_registry(connection)
    fill_logged_models(connection)


EXPERIMENTS = [
    (1, "alpha", "active", 100, 10),
    (2, "also", "active", 100, 50),
    (3, "other", "active", 200, 20),
    (4, "axed", "deleted", 300, 30),
]


def experiment(experiment_id, name, stage, created, updated):
    """An experiment's row."""
    return {
        "experiment_id": experiment_id,
        "name": name,
        "artifact_location": "mlflow-artifacts:/x",
        "lifecycle_stage": stage,
        "creation_time_ms": created,
        "last_update_time_ms": updated,
        "born": "proxy",
        "upstream_name": name,
        "lane_id": 1,
    }


def fill_runs(connection):
    """Runs with their metrics, params, tags and datasets."""
    add(connection, schema.runs, [run(key, *row[:5]) for key, row in RUNS.items()])
    add(connection, schema.params, keyed("run_pk", {key: row[6] for key, row in RUNS.items()}))
    add(connection, schema.tags, keyed("run_pk", {key: row[7] for key, row in RUNS.items()}))
    points = [(key, name, value) for key, row in RUNS.items() for name, value in row[5].items()]
    add(connection, schema.series, [series(*point) for point in points])
    names = {1: ("train", "d1"), 2: ("eval", "d2")}
    add(
        connection,
        schema.datasets,
        [
            {
                "dataset_pk": key,
                "experiment_id": 1,
                "name": name,
                "digest": digest,
                "source_type": "local",
                "source": "{}",
            }
            for key, (name, digest) in names.items()
        ],
    )
    inputs = [(1, 1, 1), (2, 1, 2), (3, 2, 1)]
    columns = ("input_pk", "run_pk", "dataset_pk")
    add(connection, schema.dataset_inputs, [dict(zip(columns, row, strict=True)) for row in inputs])
    contexts = {1: {"mlflow.data.context": "training"}, 3: {"mlflow.data.context": "validation"}}
    add(connection, schema.dataset_input_tags, keyed("input_pk", contexts))


def run(key, name, status, start, end, stage):
    """A run's row."""
    return {
        "run_pk": key,
        "run_id": RUN_IDS[key],
        "experiment_id": 2 if key == OTHER_EXPERIMENT else 1,
        "name": name,
        "user_id": "u",
        "status": status,
        "start_time_ms": start,
        "end_time_ms": end,
        "artifact_uri": "mlflow-artifacts:/x",
        "lifecycle_stage": stage,
        "born": "proxy",
        "created_at_ms": 1,
        "data_lane_id": 1,
        "artifact_lane_id": 1,
    }


def series(key, name, value):
    """A metric's row; only its latest point matters here."""
    return {
        "run_pk": key,
        "key": name,
        "points": 1,
        "highest_timestamp_ms": 0,
        "latest_step": 0,
        "latest_timestamp_ms": 0,
        "latest_value": 0.0 if value == NAN else value,
        "latest_is_nan": int(value == NAN),
    }


def fill_registry(connection):
    """Registered models and versions, a prompt among them."""
    models = {1: ("m1", 300), 2: ("m2", 100), 3: ("a b", 200), 4: ("ask", 400)}
    add(
        connection,
        schema.registered_models,
        [
            {
                "model_pk": key,
                "name": name,
                "creation_timestamp_ms": 1,
                "last_updated_timestamp_ms": updated,
                "born": "proxy",
                "upstream_name": name,
                "lane_id": 1,
            }
            for key, (name, updated) in models.items()
        ],
    )
    prompt = {"mlflow.prompt.is_prompt": "true"}
    model_tags = {1: {"t": "x"}, 2: {"t": "y"}, 3: {"t": "x"}, 4: prompt}
    add(connection, schema.registered_model_tags, keyed("model_pk", model_tags))
    versions = [
        (1, 1, 30, 100, "r1", "runs:/a", "None"),
        (1, 2, 20, 100, None, "s3://b", "None"),
        (2, 1, 10, 200, "r2", "runs:/c", "Staging"),
        (2, 2, 10, 900, "r2", "runs:/c", "Deleted_Internal"),
        (4, 1, 10, 900, None, "prompt", "None"),
    ]
    columns = (
        "model_pk",
        "version",
        "creation_timestamp_ms",
        "last_updated_timestamp_ms",
        "run_id",
        "source",
        "current_stage",
    )
    rows = [dict(zip(columns, row, strict=True)) | {"status": "READY"} for row in versions]
    add(connection, schema.model_versions, rows)
    tags = [{"model_pk": 1, "version": 2, "key": "t", "value": "x"}]
    tags += [{"model_pk": 4, "version": 1, "key": key, "value": value} for key, value in prompt.items()]
    add(connection, schema.model_version_tags, tags)


def fill_logged_models(connection):
    """Logged models with params, tags and metrics."""
    columns = ("model_pk", "name", "status", "model_type", "source_run_id", "lifecycle_stage")
    models = [
        (1, "one", "LOGGED_MODEL_READY", None, "r1", "active"),
        (2, "two", "LOGGED_MODEL_PENDING", "Agent", "r2", "active"),
        (3, "three", "LOGGED_MODEL_READY", None, None, "active"),
        (4, "axed", "LOGGED_MODEL_READY", None, None, "deleted"),
    ]
    rows = [dict(zip(columns, row, strict=True)) for row in models]
    for row in rows:
        row |= {
            "model_id": f"m-{row['model_pk']}",
            "experiment_id": 1,
            "artifact_uri": "x",
            "creation_timestamp_ms": 20 if row["name"] == "three" else 10,
            "last_updated_timestamp_ms": 1,
            "born": "proxy",
        }
    add(connection, schema.logged_models, rows)
    add(connection, schema.logged_model_params, keyed("model_pk", {1: {"lr": "0.1"}, 2: {"lr": "0.1"}}))
    add(connection, schema.logged_model_tags, keyed("model_pk", {1: {"t": "xyz"}, 2: {"t": "Xyz"}}))
    # model, timestamp, value, is_nan, dataset
    points = [
        ("m-1", 1, 5.0, 0, (None, None)),
        ("m-1", 2, 1.0, 0, ("train", "d1")),
        ("m-2", 1, 2.0, 0, ("train", "d2")),
        ("m-3", 1, 0.0, 1, (None, None)),
    ]
    rows = [
        {
            "model_id": model,
            "key": "m",
            "timestamp_ms": timestamp,
            "step": 0,
            "run_pk": 1,
            "value": value,
            "is_nan": is_nan,
            "dataset_name": name,
            "dataset_digest": digest,
        }
        for model, timestamp, value, is_nan, (name, digest) in points
    ]
    add(connection, schema.logged_model_metrics, rows)


def keyed(column, values):
    """Rows of a key-value table from a mapping for each owner."""
    return [
        {column: owner, "key": key, "value": value}
        for owner, pairs in values.items()
        for key, value in pairs.items()
    ]


def add(connection, table, rows):
    """Insert rows."""
    connection.execute(insert(table), rows)
