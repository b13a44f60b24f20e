"""Page tokens: MLflow's own form, and what else they may say."""

import base64
import json

import pytest

from server.domain.errors import MlflowError
from server.protocol.paging import decode_offset, decode_point, encode_offset, encode_point


def _token(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def test_a_token_leads_behind_its_point() -> None:
    """The point comes back as it was, to the last bit, and servers that only count read the offset."""
    point = (-(2**63), 2**63 - 1, 0.1 + 0.2, 1)
    token = encode_point(25_000, point)
    assert decode_point(token) == point
    assert decode_offset(token) == 25_000


@pytest.mark.parametrize("token", [None, "", encode_offset(7), _token({"offset": 7, "after": None})])
def test_a_token_without_a_point_is_an_offset(token: str | None) -> None:
    """Tokens of former versions and of a stock server go on by counting."""
    assert decode_point(token) is None


@pytest.mark.parametrize(
    "after",
    [
        7,
        {"step": 1},
        [],
        [1, 2, 3],
        [1, 2, 3.0, 0, 5],
        ["1", 2, 3.0, 0],
        [1, 2, "3", 0],
        [True, 2, 3.0, 0],
        [2**64, 2, 3.0, 0],
        [1, 2, float("nan"), 0],
        [1, 2, float("inf"), 0],
        [1, 2, 10**400, 0],
    ],
)
def test_a_token_with_a_false_point_is_refused(after: object) -> None:
    """What is none of ours is an invalid parameter, not a failure."""
    with pytest.raises(MlflowError, match="Invalid page token"):
        decode_point(_token({"offset": 7, "after": after}))
