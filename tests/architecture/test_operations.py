"""Every operation can be written down and delivered, and every error has a status."""

import ast
from pathlib import Path
from typing import get_args

from server.domain import operations
from server.domain.errors import HTTP_STATUS, ErrorCode, MlflowError
from server.domain.operations import LogPoint, Operation
from server.journal import codec
from server.replay.deliveries.experiments import ExperimentOperation
from server.replay.deliveries.models import ModelOperation
from server.replay.deliveries.runs import RunOperation

_DELIVERIES = Path(__file__).parents[2] / "server" / "replay" / "deliveries"
_ALL = set(get_args(Operation))


def _matched_classes() -> set[str]:
    """The classes that some delivery has a `case` for."""
    return {
        node.cls.id
        for file in _DELIVERIES.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name)
    }


def test_every_operation_is_part_of_the_union() -> None:
    """A new class in the module is a new operation, and the type checker hears of it."""
    classes = {value for value in vars(operations).values() if isinstance(value, type)}
    assert {value for value in classes if value.__module__ == operations.__name__} == _ALL


def test_every_operation_is_delivered() -> None:
    """Some delivery has a case for it; metric points travel as rows of their own."""
    assert {type_.__name__ for type_ in _ALL} - _matched_classes() == {LogPoint.__name__}


def test_deliveries_match_on_nothing_else() -> None:
    """Each delivery's own union is made of operations, and none is in two of them."""
    unions = [set(get_args(union)) for union in (ExperimentOperation, ModelOperation, RunOperation)]
    assert all(union <= _ALL for union in unions)
    assert sum(map(len, unions)) == len(set.union(*unions))


def test_every_operation_has_a_codec() -> None:
    """What is accepted can be journaled."""
    assert set(codec._TYPES.values()) == _ALL
    assert set(codec._decoders) == {type_.__name__ for type_ in _ALL}


def test_every_error_code_has_a_status() -> None:
    """No error can end in a status nobody chose."""
    assert set(HTTP_STATUS) == set(ErrorCode)
    assert {MlflowError(code, "x").status for code in ErrorCode} <= set(range(400, 600))
