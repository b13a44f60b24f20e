"""The database: engine, schema and transactions. Only persistence knows SQLAlchemy."""
