"""Where the servers come from quickly."""

from tests.durability.conftest import nursery

__all__ = ["nursery"]
