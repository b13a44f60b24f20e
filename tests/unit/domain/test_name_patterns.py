"""Patterns of names: what they mean, also with what other pattern languages read otherwise."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.name_patterns import NamePatterns


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("team-a/*", "team-a/x", True),
        ("team-a/*", "team-a/x/y", True),
        ("team-a/*", "team-a/", True),
        ("team-a/*", "team-a", False),
        ("team-a/*", "Team-a/x", False),
        ("team-a/*", "xteam-a/x", False),
        ("exact", "exact", True),
        ("exact", "exact2", False),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*b*", "abc", True),
        ("a?c", "abc", False),
        ("a[b]c", "abc", False),
        ("a[b]c", "a[b]c", True),
        ("a*", "a\nb", True),
    ],
)
def test_only_the_asterisk_means_more_than_itself(pattern: str, name: str, expected: bool) -> None:
    """It stands for any characters; the whole name must match."""
    assert NamePatterns((pattern,)).matches(name) is expected


@given(st.lists(st.text("ab*[?/", max_size=8), min_size=1, max_size=3), st.text("ab[?/", max_size=10))
def test_it_agrees_with_a_regular_expression(patterns: list[str], name: str) -> None:
    """The matcher takes parts greedily; that finds what trying every way would find."""
    expected = any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) for pattern in patterns
    )
    assert NamePatterns(tuple(patterns)).matches(name) is bool(expected)


def test_no_pattern_is_slow() -> None:
    """A pattern of many wildcards costs no more than its length times the name's."""
    started = time.process_time()
    assert not NamePatterns(("*a" * 249 + "b",)).matches("a" * 500)
    assert time.process_time() - started < 0.5
