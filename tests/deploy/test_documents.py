"""The pages about running it point at what is there."""

import re
from pathlib import Path

import pytest

from server.settings import Settings
from tests.support.emulator import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES += sorted((REPOSITORY / "docs" / "deploy").glob("*.md"))
SETTINGS = {f"MLPROXY_{name}".upper() for name in Settings.model_fields}
# What the clients' scripts read; not the server.
OF_CLIENTS = {"MLPROXY_URL", "MLPROXY_KEY", "MLPROXY_EXPERIMENT"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or a folder of the repository."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES[-5:], ids=lambda page: page.stem)
def test_settings_and_scripts_that_are_named_exist(page: Path) -> None:
    """A misspelt setting or path in an instruction would be copied."""
    text = page.read_text()
    assert set(re.findall(r"\bMLPROXY_[A-Z_]+\b", text)) - SETTINGS - OF_CLIENTS == set()
    named = re.findall(r"\bdeploy/\w+/[\w./-]*\w", text)
    assert [path for path in named if not (REPOSITORY / path).exists()] == []
