"""Names the proxy makes up, and names the workspace can find."""

import re

from hypothesis import given
from hypothesis import strategies as st

from server.domain.names import make_run_name, upstream_experiment_name, upstream_model_name

_names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=500)
_paths = st.lists(st.text("ab. _-é", max_size=6), min_size=1, max_size=4).map("/".join).filter(bool)


@given(_names | _paths)
def test_an_upstream_experiment_name_can_be_found_in_the_workspace(name: str) -> None:
    """It begins with a letter or digit and holds only what the workspace's lookup understands."""
    made = upstream_experiment_name(name)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_\- .]{0,254}", made)
    assert made == made.strip()


@given(_names | _paths)
def test_an_upstream_experiment_name_is_always_the_same(name: str) -> None:
    """The mapping is deterministic, and a name that can be found stays as it is."""
    made = upstream_experiment_name(name)
    assert upstream_experiment_name(name) == made
    assert upstream_experiment_name(made) == made


@given(st.lists(_names | _paths, unique=True, max_size=20))
def test_different_experiments_have_different_upstream_names(names: list[str]) -> None:
    """`/Users/a/exp` and `/Users/b/exp` stay two experiments."""
    assert len({upstream_experiment_name(name) for name in names}) == len(names)


def test_a_databricks_path_keeps_its_last_part_readable() -> None:
    """The name in the workspace begins with what people call the experiment."""
    assert re.fullmatch(r"exp-[0-9a-f]{8}", upstream_experiment_name("/Users/me@example.com/exp"))


@given(_names | _paths)
def test_an_upstream_model_name_is_one_the_workspace_accepts(name: str) -> None:
    """It holds only letters, digits, dots, dashes and underscores, and is always the same."""
    made = upstream_model_name(name)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,254}", made)
    assert upstream_model_name(name) == made


@given(st.lists(_names | _paths, unique=True, max_size=20))
def test_different_models_have_different_upstream_names(names: list[str]) -> None:
    """Two registered models are never delivered as one."""
    assert len({upstream_model_name(name) for name in names}) == len(names)


def test_a_made_up_run_name_looks_like_mlflows() -> None:
    """Adjective, noun, number."""
    assert re.fullmatch(r"[a-z]+-[a-z]+-\d{1,3}", make_run_name())
