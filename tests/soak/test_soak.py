"""A short soak, always with the same seed; `make soak` is the long one."""

from pathlib import Path

import pytest

from tests.soak.driver import Soak

SECONDS = 30.0
SEED = 20201112


@pytest.mark.fault("1", "3", "5", "6", "7", "8", "9", "13")
def test_a_short_soak(tmp_path: Path) -> None:
    """Half a minute of clients, faults, kills and outages breaks none of the five promises of the oracle."""
    soak = Soak(tmp_path, SECONDS, SEED)
    assert soak.run() == []
    assert soak.done["proxy killed"] > 0
