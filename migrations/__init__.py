"""Alembic migrations; the wheel carries them."""
