"""The points of a batch, checked in one pass."""

import math

import msgspec
import pytest

from server.domain.entities import Metric
from server.domain.errors import MlflowError
from server.protocol.runs import LARGEST_DOUBLE, LogBatchRequest, MetricMessage, parse_metric, parse_metrics

GOOD = MetricMessage(key="loss", value=0.5, timestamp=1, step=0)
AWKWARD = [
    MetricMessage(key="loss", value="NaN", timestamp=1, step=0),
    MetricMessage(key="loss", value=math.nan, timestamp=1, step=0),
    MetricMessage(key="loss", value="Infinity", timestamp=1),
    MetricMessage(key="loss", value=-math.inf, timestamp=1),
    MetricMessage(key="loss", value="0.25", timestamp=0),
    MetricMessage(key="loss", value=LARGEST_DOUBLE, timestamp=2**63 - 1, step=2**63 - 1),
    MetricMessage(key="loss", value=-LARGEST_DOUBLE, timestamp=0, step=-(2**63)),
    MetricMessage(key="other/name", value=1.0, timestamp=3, step=None),
]
BROKEN = [
    MetricMessage(key=None, value=0.5, timestamp=1),
    MetricMessage(key="", value=0.5, timestamp=1),
    MetricMessage(key="a//b", value=0.5, timestamp=1),
    MetricMessage(key="x" * 251, value=0.5, timestamp=1),
    MetricMessage(key="loss", value=None, timestamp=1),
    MetricMessage(key="loss", value="many", timestamp=1),
    MetricMessage(key="loss", value=0.5, timestamp=None),
    MetricMessage(key="loss", value=0.5, timestamp=-1),
    MetricMessage(key="loss", value=0.5, timestamp=2**63),
    MetricMessage(key="loss", value=0.5, timestamp=1, step=2**63),
    MetricMessage(key="loss", value=0.5, timestamp=1, step=-(2**63) - 1),
]


@pytest.mark.parametrize("message", AWKWARD)
def test_a_point_is_read_alike_alone_and_in_a_batch(message: MetricMessage) -> None:
    """Whether the name was seen before in the batch or not, a point comes out as it does by itself."""
    alone = parse_metric(message)
    assert parse_metrics([message]) == [alone]
    assert parse_metrics([GOOD, message]) == [Metric("loss", 0, 1, 0.5, 0), alone]


@pytest.mark.parametrize("message", BROKEN)
def test_a_point_that_breaks_a_rule_is_refused_by_its_place(message: MetricMessage) -> None:
    """A batch is refused with the words for the single point, and says which one of the batch it was."""
    with pytest.raises(MlflowError) as alone:
        parse_metric(message, "metrics[1].")
    with pytest.raises(MlflowError) as in_batch:
        parse_metrics([GOOD, message, GOOD])
    assert str(in_batch.value) == str(alone.value)


def test_a_whole_number_is_a_value_too() -> None:
    """JSON has one kind of number: 3 is the value 3.0, after a point of the same name as well."""
    body = (
        b'{"metrics": [{"key": "m", "value": 1.5, "timestamp": 1}, {"key": "m", "value": 3, "timestamp": 2}]}'
    )
    request = msgspec.json.decode(body, type=LogBatchRequest)
    assert [(metric.value, type(metric.value)) for metric in parse_metrics(request.metrics)] == [
        (1.5, float),
        (3.0, float),
    ]
