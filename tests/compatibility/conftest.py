"""What these tests share with others: databases, and where servers come from quickly."""

from tests.durability.conftest import nursery
from tests.integration.conftest import database_url, make_database, postgres_url

__all__ = ["database_url", "make_database", "nursery", "postgres_url"]
