"""The order_by grammar, the messages of logged models, and page tokens."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.domain.errors import ErrorCode, MlflowError
from server.protocol.paging import decode_offset, encode_offset
from server.protocol.search import (
    DatasetFilter,
    Entity,
    LoggedModelOrderBy,
    Order,
    parse_experiment_order,
    parse_logged_model_datasets,
    parse_logged_model_order,
    parse_model_version_order,
    parse_registered_model_order,
    parse_run_order,
)

PARSERS = (
    parse_run_order,
    parse_experiment_order,
    parse_registered_model_order,
    parse_model_version_order,
)


@pytest.mark.parametrize(
    ("parse", "clause", "entity", "key", "ascending"),
    [
        (parse_run_order, "metrics.a", "metric", "a", True),
        (parse_run_order, "metrics.`a b` DESC", "metric", "a b", False),
        (parse_run_order, 'metric."a-b"  desc', "metric", "a-b", False),
        (parse_run_order, "params.lr ASC", "parameter", "lr", True),
        (parse_run_order, "tags.mlflow.source.name", "tag", "mlflow.source.name", True),
        (parse_run_order, "attributes.start_time DESC", "attribute", "start_time", False),
        (parse_run_order, "Created", "attribute", "start_time", True),
        (parse_run_order, "run_name", "attribute", "run_name", True),
        (parse_experiment_order, "last_update_time DESC", "attribute", "last_update_time", False),
        (parse_experiment_order, "attribute.name", "attribute", "name", True),
        (parse_registered_model_order, "timestamp DESC", "attribute", "last_updated_timestamp", False),
        (parse_registered_model_order, "name", "attribute", "name", True),
        (parse_model_version_order, "version_number DESC", "attribute", "version_number", False),
        (parse_model_version_order, "attribute.creation_timestamp", "attribute", "creation_timestamp", True),
    ],
)
def test_reads_an_order_clause(parse, clause, entity, key, ascending):
    """Keys are named as in filters; ascending is the default."""
    assert parse([clause]) == (Order(Entity(entity), key, ascending),)


@pytest.mark.parametrize(
    ("parse", "clause", "message"),
    [
        (parse_run_order, "", "Invalid order_by clause ''. Could not be parsed."),
        (parse_run_order, " metrics.a", "Invalid order_by clause ' metrics.a'. Could not be parsed."),
        (parse_run_order, "metrics.a DESC NULLS LAST", "Invalid order_by clause"),
        (parse_run_order, "metrics.a-b", "Invalid order_by clause 'metrics.a-b'. Could not be parsed."),
        (parse_run_order, "a, b", "Invalid order_by clause 'a, b'. Could not be parsed."),
        (parse_run_order, "metrics.a down", "Invalid ordering key in order_by clause 'metrics.a down'."),
        (parse_run_order, "foo", "Invalid attribute key 'foo' specified."),
        (parse_run_order, "foo.a", "Invalid entity type 'foo'."),
        (parse_run_order, "`run name`", "Invalid attribute key 'run name' specified."),
        (parse_run_order, "dataset.name", "Invalid identifier type 'dataset'"),
        (parse_experiment_order, "tags.a", "Invalid order_by entity: tag"),
        (parse_registered_model_order, "creation_timestamp", "Invalid order by key 'creation_timestamp'"),
        (parse_registered_model_order, "attribute.name", "Invalid order by key 'attribute.name' specified."),
        (parse_model_version_order, "run_id", "Invalid attribute key 'run_id' specified."),
        (parse_model_version_order, "tags.a", "Invalid order by key 'a' specified."),
    ],
)
def test_refuses_an_order_clause_in_mlflows_words(parse, clause, message):
    """What cannot be sorted by ends in INVALID_PARAMETER_VALUE and says why."""
    assert refusal(parse, [clause]).startswith(message)


@pytest.mark.parametrize(
    ("parse", "clauses"),
    [
        (parse_run_order, ["created", "start_time DESC"]),
        (parse_registered_model_order, ["timestamp", "last_updated_timestamp"]),
        (parse_model_version_order, ["name", "name DESC"]),
    ],
)
def test_refuses_a_key_named_twice(parse, clauses):
    """The same key under two names is still the same key."""
    assert refusal(parse, clauses).startswith("`order_by` contains duplicate fields:")


def test_the_number_of_clauses_is_bounded():
    """More clauses than a database can join are refused."""
    assert "limited to 30 clauses" in refusal(parse_run_order, [f"metrics.m{i}" for i in range(31)])


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=50), st.text("metricsnamptg. `\"'ADESC,-", max_size=25)))
def test_any_clause_parses_or_is_refused(clause):
    """Whatever a client sends, the answer is an order or a refusal, never another error."""
    for parse in PARSERS:
        outcome = parsed_or_refused(parse, [clause])
        assert outcome is ErrorCode.INVALID_PARAMETER_VALUE or isinstance(outcome, tuple)


def test_reads_the_order_messages_of_logged_models():
    """Attributes go by their aliases; a metric may be narrowed to a dataset."""
    messages = [
        LoggedModelOrderBy("creation_time", ascending=False),
        LoggedModelOrderBy("metrics.val.loss", dataset_name="d", dataset_digest="x"),
    ]
    assert parse_logged_model_order(messages) == (
        Order(Entity.ATTRIBUTE, "creation_timestamp", ascending=False),
        Order(Entity.METRIC, "val.loss", ascending=True, dataset_name="d", dataset_digest="x"),
    )


@pytest.mark.parametrize("field_name", ["", "foo", "params.a", "metric.a"])
def test_refuses_to_sort_logged_models_by_anything_else(field_name):
    """Only attributes and metrics can be sorted by."""
    message = refusal(parse_logged_model_order, [LoggedModelOrderBy(field_name)])
    assert message.startswith(f"Invalid order by field name: {field_name}")


def test_reads_datasets_of_logged_models():
    """An empty digest is no digest, and a dataset must have a name."""
    assert parse_logged_model_datasets([("d", ""), ("e", "x")]) == (
        DatasetFilter("d", None),
        DatasetFilter("e", "x"),
    )
    assert "`dataset_name` in the `datasets` clause" in refusal(parse_logged_model_datasets, [("", "x")])


def test_a_page_token_is_mlflows():
    """A token of a stock server is read, and ours is what it would have written."""
    assert encode_offset(100) == "eyJvZmZzZXQiOiAxMDB9"
    assert decode_offset("eyJvZmZzZXQiOiAxMDB9") == 100
    assert decode_offset(None) == decode_offset("") == 0


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("abc", "Invalid page token, could not base64-decode"),
        ("é", "Invalid page token, could not base64-decode"),
        (b"nonsense", "Invalid page token, decoded value=b'nonsense'"),
        (b"\xff\xfe\xfd", "Invalid page token, decoded value="),
        (b"[" * 100_000, "Invalid page token, decoded value="),
        (b"[1]", "Invalid page token, parsed value=[1]"),
        (b'{"offset": 0}', "Invalid page token, parsed value={'offset': 0}"),
        (b'{"other": 1}', "Invalid page token, parsed value={'other': 1}"),
        (b'{"offset": "x"}', "Invalid page token, not stringable x"),
        (b'{"offset": [1]}', "Invalid page token, not stringable [1]"),
        (b'{"offset": -1}', "Invalid page token, parsed value=-1"),
        (b'{"offset": 99999999999999999999}', "Invalid page token, parsed value=99999999999999999999"),
    ],
)
def test_refuses_a_token_that_is_none_of_ours(token, message):
    """A token nobody handed out is refused, not guessed at."""
    text = token if isinstance(token, str) else base64.b64encode(token).decode()
    assert refusal(decode_offset, text).startswith(message)


@given(st.text())
def test_any_token_is_read_or_refused(text):
    """No token ends in another error."""
    outcome = parsed_or_refused(decode_offset, text)
    assert outcome is ErrorCode.INVALID_PARAMETER_VALUE or outcome >= 0


def refusal(parse, argument):
    """The message an argument is refused with."""
    with pytest.raises(MlflowError) as caught:
        parse(argument)
    assert caught.value.code is ErrorCode.INVALID_PARAMETER_VALUE
    return caught.value.message


def parsed_or_refused(parse, argument):
    """What the argument says, or the code it is refused with."""
    try:
        return parse(argument)
    except MlflowError as error:
        return error.code
