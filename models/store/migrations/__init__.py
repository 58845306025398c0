"""Alembic migrations, run by models.store.schema."""
