"""The lines of overflow files: read back as they were written, and readable by anyone."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.overflow_files import (
    OverflowKind,
    OverflowLine,
    decode_line,
    encode_line,
    number_of_path,
    path_of_file,
)

_text = st.text(st.characters(exclude_categories=["Cs"]))
_times = st.integers(-(2**63), 2**63 - 1)
_metrics = st.builds(
    OverflowLine, st.just(OverflowKind.METRIC), _text, st.floats(allow_nan=False), _times, _text, _times
)
_others = st.builds(
    OverflowLine, st.sampled_from([OverflowKind.PARAM, OverflowKind.TAG]), _text, _text, _times, _text
)


@given(_metrics | _others)
def test_a_line_comes_back_as_it_was_written(line: OverflowLine) -> None:
    """Every value that a client can log survives, on one line of JSON."""
    text = encode_line(line)
    assert text.count(b"\n") == 1
    assert b"\r" not in text
    assert text == encode_line(line)
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert decode_line(text) == line


def test_numbers_that_json_does_not_have_are_words() -> None:
    """NaN and the infinities travel as MLflow writes them."""
    for value, word in ((math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN")):
        text = encode_line(OverflowLine(OverflowKind.METRIC, "m", value, 1, "metric_names_per_run", 2))
        assert json.loads(text)["value"] == word
        assert repr(decode_line(text).value) == repr(value)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[1]", b'"x"', b'{"kind":"metric","key":"m","value":"x","timestamp":1,"step":1}', b"\xff"],
)
def test_what_is_not_a_line_is_told(text: bytes) -> None:
    """A file that someone else has written is not taken for ours."""
    with pytest.raises(ValueError, match="not a line of an overflow file"):
        decode_line(text)


def test_paths_and_numbers() -> None:
    """A file's number is in its name, and nothing else is a file of ours."""
    assert path_of_file(12) == "mlproxy/overflow-12.jsonl"
    assert number_of_path(path_of_file(12)) == 12
    for path in ("mlproxy/overflow-.jsonl", "x/mlproxy/overflow-1.jsonl", "mlproxy/overflow-1.jsonl/x"):
        assert number_of_path(path) is None
