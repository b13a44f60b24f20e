"""What these tests share with others: where servers come from quickly."""

from tests.durability.conftest import nursery

__all__ = ["nursery"]
