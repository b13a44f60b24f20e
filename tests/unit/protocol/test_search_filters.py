"""The filter grammar: what it reads, what it refuses and in which words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.search import (
    Comparison,
    Entity,
    Operator,
    parse_experiment_filter,
    parse_logged_model_filter,
    parse_model_version_filter,
    parse_registered_model_filter,
    parse_run_filter,
)

ATTRIBUTE, METRIC, PARAM, TAG, DATASET = (
    Entity.ATTRIBUTE,
    Entity.METRIC,
    Entity.PARAM,
    Entity.TAG,
    Entity.DATASET,
)
PARSERS = (
    parse_run_filter,
    parse_experiment_filter,
    parse_registered_model_filter,
    parse_model_version_filter,
    parse_logged_model_filter,
)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("text", [None, ""])
def test_no_text_is_no_comparison(parse, text):
    """A search without a filter finds everything."""
    assert parse(text) == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metrics.acc > 0.5", (METRIC, "acc", ">", 0.5)),
        ("metric.acc>=-1", (METRIC, "acc", ">=", -1.0)),
        ("metrics.a <= 1e-3", (METRIC, "a", "<=", 0.001)),
        ("metrics.a != .5", (METRIC, "a", "!=", 0.5)),
        ("metrics.a < 5.", (METRIC, "a", "<", 5.0)),
        ("metrics.`val/loss` = 1", (METRIC, "val/loss", "=", 1.0)),
        ('metrics."f1-score" = 1', (METRIC, "f1-score", "=", 1.0)),
        ("metrics.val.loss = 1", (METRIC, "val.loss", "=", 1.0)),
        ("metrics.été = 1", (METRIC, "été", "=", 1.0)),
        ("params.lr = '0.1'", (PARAM, "lr", "=", "0.1")),
        ("param.lr='0.1'", (PARAM, "lr", "=", "0.1")),
        ('parameter.lr = "0.1"', (PARAM, "lr", "=", "0.1")),
        ("parameters.lr like '%1'", (PARAM, "lr", "LIKE", "%1")),
        ("params.lr ILIKE 'A_'", (PARAM, "lr", "ILIKE", "A_")),
        ("params.lr IS NULL", (PARAM, "lr", "IS NULL", None)),
        ("tags.a is not null", (TAG, "a", "IS NOT NULL", None)),
        ("tags.mlflow.parentRunId = 'x'", (TAG, "mlflow.parentRunId", "=", "x")),
        ("`tags`.`a.b` = 'x'", (TAG, "a.b", "=", "x")),
        ("tags.'a b' != ''", (TAG, "a b", "!=", "")),
        ("tags.key = 'x'", (TAG, "key", "=", "x")),
        ("tags.like = 'x'", (TAG, "like", "=", "x")),
        ('tag.a = "it\'s"', (TAG, "a", "=", "it's")),
        ("tag.a = 'it''s'", (TAG, "a", "=", "it''s")),
        ("status = 'RUNNING'", (ATTRIBUTE, "status", "=", "RUNNING")),
        ("attributes.status != 'RUNNING'", (ATTRIBUTE, "status", "!=", "RUNNING")),
        ("attr.user_id LIKE 'u%'", (ATTRIBUTE, "user_id", "LIKE", "u%")),
        ("run.artifact_uri = 'x'", (ATTRIBUTE, "artifact_uri", "=", "x")),
        ("`run name` = 'x'", (ATTRIBUTE, "run_name", "=", "x")),
        ("\"Run name\" = 'x'", (ATTRIBUTE, "run_name", "=", "x")),
        ("attributes.`Run Name` = 'x'", (ATTRIBUTE, "run_name", "=", "x")),
        ("created > 5", (ATTRIBUTE, "start_time", ">", 5)),
        ("Created > 5", (ATTRIBUTE, "start_time", ">", 5)),
        ("end_time < 5.5", (ATTRIBUTE, "end_time", "<", 5.5)),
        ("run_id IN ('a', \"b\",)", (ATTRIBUTE, "run_id", "IN", ("a", "b"))),
        ("run_id not in('a')", (ATTRIBUTE, "run_id", "NOT IN", ("a",))),
        ("dataset.name = 'd'", (DATASET, "name", "=", "d")),
        ("datasets.digest IN ('a', 'b')", (DATASET, "digest", "IN", ("a", "b"))),
        ("dataset.context ILIKE 'tr%'", (DATASET, "context", "ILIKE", "tr%")),
    ],
)
def test_reads_a_run_comparison(text, expected):
    """Every spelling stock clients use means what it means to MLflow."""
    entity, key, operator, value = expected
    assert parse_run_filter(text) == (Comparison(entity, key, Operator(operator), value),)


def test_joins_comparisons_by_and_in_any_case():
    """AND is the one connective; case and white space do not matter."""
    found = parse_run_filter("  metrics.a > 1 AND params.b='AND'and\n tags.c IS NULL ")
    assert [comparison.key for comparison in found] == ["a", "b", "c"]


REFUSED_RUN_FILTERS = [
    ("   ", "Invalid filter '   '. Could not be parsed."),
    ("metrics.a > 1 OR metrics.b > 1", "Invalid clause(s) in filter string: 'OR'"),
    ("(metrics.a > 1)", "Invalid clause(s) in filter string: '(metrics.a > 1)'"),
    ("metrics.a BETWEEN 1 AND 2", "Invalid clause(s) in filter string: 'metrics.a', 'BETWEEN', '1', '2'"),
    ("tags.a = 'x';", "Invalid clause(s) in filter string: ';'"),
    ("tags.a = 'x'; tags.b = 'y'", "Search filter contained multiple expression"),
    ("tags.a IS", "Invalid clause(s) in filter string: 'tags.a', 'IS'"),
    ("tags.a = 'x", "Invalid clause(s) in filter string:"),
    ("run name = 'x'", "Invalid clause(s) in filter string: 'run'"),
    ("1 < metrics.a", "Invalid comparison clause. Expected 'Identifier' found '1'"),
    ("metrics.a-b > 1", "Invalid comparison clause. Expected 'Identifier' found 'metrics.a-b'"),
    ("foo.a = 'x'", "Invalid entity type 'foo'. Valid values are ['metric', 'parameter', 'tag'"),
    ("'name' = 'x'", "Invalid comparison clause. Expected 'Identifier' found ''name''"),
    ("foo = 'x'", "Invalid attribute key 'foo' specified. Valid keys are"),
    ("lifecycle_stage = 'active'", "Invalid attribute key 'lifecycle_stage' specified."),
    ("dataset.source = 'x'", "Invalid dataset key 'source' specified."),
    ("metrics.a = '1'", "Expected numeric value type for metric. Found '1'"),
    ("metrics.a = 1e+5", "Expected numeric value type for metric. Found 1e+5"),
    ("metrics.a = NaN", "Expected numeric value type for metric. Found NaN"),
    ("metrics.a = NULL", "Expected numeric value type for metric. Found NULL"),
    ("metrics.a LIKE 1", "Invalid comparator 'LIKE' not one of"),
    ("metrics.a == 1", "Invalid comparator '==' not one of"),
    ("metrics.a IS NULL", "IS NULL / IS NOT NULL is only supported for tags and params, not for"),
    ("params.a > '1'", "Invalid comparator '>' not one of"),
    ("params.a = 0.1", "Expected a quoted string value for parameter (e.g. 'my-value'). Got value 0.1"),
    ("params.a IN ('x')", "Expected a quoted string value for parameter (e.g. 'my-value'). Got"),
    ("tags.a NOT LIKE 'x'", "Invalid comparator 'NOT LIKE' not one of"),
    ("tags.a = x", "Parameter value is either not quoted or unidentified quote types used for string"),
    ("tags.a = `x`", "Parameter value is either not quoted or unidentified quote types used for string"),
    ("start_time = '5'", "Expected numeric value type for numeric attribute: start_time. Found '5'"),
    ("start_time LIKE 5", "Invalid comparator 'LIKE' not one of"),
    ("start_time > 99999999999999999999", "Invalid value for numeric attribute 'start_time'"),
    ("status = 5", "Expected a quoted string value for attributes. Got value 5"),
    ("status > 'x'", "Invalid comparator '>' not one of"),
    ("status IN ('x')", "Only ['run_id'] attributes support comparison with a list of quoted string"),
    ("run_id IN ()", "While parsing a list in the query, expected a non-empty list of string values, but"),
    ("run_id IN ('a', 1)", "While parsing a list in the query, expected string value, punctuation, or"),
    ("run_id IN ('a' , , 'b')", "While parsing a list in the query, expected a non-empty list"),
    ("run_id = ('a')", "Invalid comparator '=' for a list"),
    ("run_id IN 'a'", "Invalid clause(s) in filter string: 'run_id', 'IN', ''a''"),
    ("tags.a = 'x\0'", "Search text must not hold NUL"),
    ("tags.a = '\ud800'", "Search text must not hold NUL"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED_RUN_FILTERS)
def test_refuses_a_run_filter_in_mlflows_words(text, message):
    """What is not in the grammar ends in INVALID_PARAMETER_VALUE and says why."""
    assert refusal(parse_run_filter, text).startswith(message)


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parse_experiment_filter, "name ILIKE 'a%'", (ATTRIBUTE, "name", "ILIKE", "a%")),
        (parse_experiment_filter, "attribute.creation_time > 5", (ATTRIBUTE, "creation_time", ">", 5)),
        (parse_experiment_filter, "experiment_id = '5'", (ATTRIBUTE, "experiment_id", "=", 5)),
        (
            parse_experiment_filter,
            "experiment_id NOT IN ('5', '6')",
            (ATTRIBUTE, "experiment_id", "NOT IN", (5, 6)),
        ),
        (parse_experiment_filter, "tags.`a b` IS NULL", (TAG, "a b", "IS NULL", None)),
        (parse_registered_model_filter, "name IN ('a')", (ATTRIBUTE, "name", "IN", ("a",))),
        (parse_registered_model_filter, "tag.a LIKE 'x'", (TAG, "a", "LIKE", "x")),
        (parse_model_version_filter, "version_number >= '2'", (ATTRIBUTE, "version_number", ">=", 2)),
        (parse_model_version_filter, "version_number < 2", (ATTRIBUTE, "version_number", "<", 2)),
        (parse_model_version_filter, "source_path LIKE 's3%'", (ATTRIBUTE, "source_path", "LIKE", "s3%")),
        (parse_model_version_filter, "run_id IN ('a', 'b')", (ATTRIBUTE, "run_id", "IN", ("a", "b"))),
        (parse_logged_model_filter, "name = 'x'", (ATTRIBUTE, "name", "=", "x")),
        (parse_logged_model_filter, "creation_time > 5", (ATTRIBUTE, "creation_timestamp", ">", 5.0)),
        (
            parse_logged_model_filter,
            "attributes.last_updated_timestamp > 5",
            (ATTRIBUTE, "last_updated_timestamp", ">", 5.0),
        ),
        (parse_logged_model_filter, "metrics.`a b` < 0.5", (METRIC, "a b", "<", 0.5)),
        (parse_logged_model_filter, "params.lr = 0.01", (PARAM, "lr", "=", "0.01")),
        (parse_logged_model_filter, "tags.a in ('x', 'y')", (TAG, "a", "IN", ("x", "y"))),
    ],
)
def test_reads_a_comparison_of_other_nouns(parse, text, expected):
    """The other searches read their own keys."""
    entity, key, operator, value = expected
    assert parse(text) == (Comparison(entity, key, Operator(operator), value),)


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_experiment_filter, "metrics.a > 1", "Invalid entity type 'metrics'. Valid entity types are"),
        (parse_experiment_filter, "name = 'a' OR name = 'b'", "Invalid clause(s) in filter string: OR"),
        (parse_experiment_filter, "run_id = 'x'", "Invalid attribute key 'run_id' specified."),
        (parse_experiment_filter, "name IN ('a')", "Only ['experiment_id'] attributes support comparison"),
        (parse_experiment_filter, "experiment_id = 'x'", "Invalid experiment ID 'x'. Experiment ID must be"),
        (parse_experiment_filter, "experiment_id LIKE '1'", "Invalid comparator 'LIKE' not one of"),
        (
            parse_experiment_filter,
            "creation_time > 1.5",
            "Invalid value for numeric attribute 'creation_time'",
        ),
        (
            parse_experiment_filter,
            "name IS NULL",
            "IS NULL / IS NOT NULL is only supported for tags, not for",
        ),
        (parse_registered_model_filter, "run_id = 'x'", "Invalid attribute key 'run_id' specified."),
        (parse_registered_model_filter, "name = 5", "Expected a quoted string value"),
        (parse_registered_model_filter, "tags.a IS NULL", "IS NULL / IS NOT NULL is only supported for"),
        (parse_model_version_filter, "version_number = 'x'", "Invalid value for numeric attribute 'version"),
        (parse_model_version_filter, "version_number = 1.5", "Invalid value for numeric attribute 'version"),
        (parse_model_version_filter, "source_path IN ('x')", "Only ['name', 'run_id'] attributes support"),
        (parse_model_version_filter, "params.a = 'x'", "Invalid entity type 'params'."),
        (parse_logged_model_filter, "metric.a > 1", "Invalid entity type: 'metric'. Expected one of"),
        (parse_logged_model_filter, "metrics.a > 'x'", "Expected numeric value type. Found 'x'"),
        (parse_logged_model_filter, "metrics.a LIKE 1", "Invalid comparator 'LIKE' not one of"),
        (parse_logged_model_filter, "params.a > 'x'", "Invalid comparator '>' not one of"),
        (parse_logged_model_filter, "params.a IS NULL", "Invalid comparison: params.a IS NULL."),
        (parse_logged_model_filter, "name = 'a' OR name = 'b'", "Invalid filter string:"),
        (parse_logged_model_filter, "foo = 'a'", "Invalid attribute key 'foo' specified."),
    ],
)
def test_refuses_other_nouns_filters_in_mlflows_words(parse, text, message):
    """Each search refuses what only other searches know."""
    assert refusal(parse, text).startswith(message)


@pytest.mark.parametrize("parse", PARSERS)
def test_a_filter_is_bounded(parse):
    """Neither length nor the number of comparisons can make the work grow without end."""
    clause = "tags.a = 'x'"
    assert len(parse(" AND ".join([clause] * 200))) == 200
    assert "limited to 200 comparisons" in refusal(parse, " AND ".join([clause] * 201))
    assert "limited to 20000 characters" in refusal(parse, f"tags.a = '{'x' * 20_000}'")
    assert "LIKE pattern is limited" in refusal(parse, f"tags.a LIKE '{'x' * 10_001}'")


@pytest.mark.parametrize(
    "text",
    ["(" * 20_000, "'" * 19_999, "`" * 19_999, "a." * 10_000, "-" * 20_000, "NOT " * 5_000, "9" * 20_000],
)
def test_hostile_texts_are_refused(text):
    """Texts made to exhaust a parser are refused like any other nonsense."""
    for parse in PARSERS:
        assert refusal(parse, text)


TEXTS = ["'x'", '"y"', "`z`", "1", "-0.5", "1e5", "('a', 'b')", "metrics.a", "params.`b c`", "tags.c"]
NAMES = ["run_id", "name", "status", "start_time", "version_number", "foo"]
WORDS = ["=", "!=", ">", "LIKE", "IN", "NOT", "IS", "NULL", "AND", "OR"]
SIGNS = ["(", ")", ",", ";", "'", '"', "`", ".", "\\", "--", "\n"]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from([*TEXTS, *NAMES, *WORDS, *SIGNS]), max_size=12).map(" ".join),
    )
)
def test_any_text_parses_or_is_refused(text):
    """Whatever a client sends, the answer is comparisons or a refusal, never another error."""
    for parse in PARSERS:
        outcome = parsed_or_refused(parse, text)
        assert outcome is ErrorCode.INVALID_PARAMETER_VALUE or isinstance(outcome, tuple)


keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="`\0"), min_size=1, max_size=30)
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="'\\\0"), max_size=30)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["params", "tags"]), keys, values), min_size=1, max_size=5))
def test_quoted_keys_and_values_come_back(conditions):
    """Any key in backticks and any value in quotes is read as it was written."""
    text = " AND ".join(f"{prefix}.`{key}` = '{value}'" for prefix, key, value in conditions)
    found = parse_run_filter(text)
    assert [(comparison.key, comparison.value) for comparison in found] == [
        (key, value) for _, key, value in conditions
    ]


def refusal(parse, text):
    """The message a text is refused with."""
    with pytest.raises(MlflowError) as caught:
        parse(text)
    assert caught.value.code is ErrorCode.INVALID_PARAMETER_VALUE
    return caught.value.message


def parsed_or_refused(parse, text):
    """What the text says, or the code it is refused with."""
    try:
        return parse(text)
    except MlflowError as error:
        return error.code
