"""`make mutate` can be run at any time: what it changes is there, and the tests it counts on are."""

import ast
from pathlib import Path

import pytest

from tests.mutation.mutations import MUTATIONS, Mutation

_REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_can_be_made(mutation: Mutation, tmp_path: Path) -> None:
    """Each replacement fits in exactly one place, changes something, and leaves code that compiles."""
    for edit in mutation.edits:
        target = tmp_path / edit.file
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text((_REPOSITORY / edit.file).read_text())
        edit.apply(tmp_path)
        assert target.read_text() != (_REPOSITORY / edit.file).read_text()
        ast.parse(target.read_text())


@pytest.mark.parametrize("test", sorted({test for mutation in MUTATIONS for test in mutation.tests}))
def test_what_should_notice_it_is_there(test: str) -> None:
    """The file, and the test in it, exist."""
    file, _, name = test.partition("::")
    path = _REPOSITORY / file
    assert path.exists()
    if name:
        function = name.partition("[")[0]
        tree = ast.parse(path.read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
