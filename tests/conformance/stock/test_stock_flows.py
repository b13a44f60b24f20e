"""Stock clients of four versions do the same things with the proxy and with a stock server."""

from tests.conformance.stock.compare import Comparison
from tests.conformance.stock.conftest import CLIENTS, Comparisons
from tests.conformance.stock.policy import DIFFERENCES

SHOWN = 40


def test_stock_completes_every_flow(comparison: Comparison) -> None:
    """The flows ask for nothing that a stock server cannot do, so that there is something to compare."""
    assert comparison.broken_on_stock == {}
    assert comparison.flows > 20


def test_every_field_is_as_on_stock(comparison: Comparison) -> None:
    """What the client got differs in no field but those that are declared."""
    shown = "\n".join(map(str, comparison.differences[:SHOWN]))
    assert not comparison.differences, f"{len(comparison.differences)} differences:\n{shown}"


def test_every_declared_difference_is_seen(comparisons: Comparisons) -> None:
    """No declared difference outlives its reason: each is met by one of the client versions."""
    met = {rule for client in CLIENTS for rule in comparisons.of(client).rules_met}
    assert [rule for rule in DIFFERENCES if rule not in met] == []
