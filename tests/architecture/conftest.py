"""Databases for the tests that compare schemas: those of the integration tests."""

from tests.integration.conftest import database_url, make_database, postgres_url

__all__ = ["database_url", "make_database", "postgres_url"]
