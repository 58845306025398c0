"""The fixtures of the store, here too: both databases."""

from tests.integration.models.store.conftest import any_url, database

__all__ = ["any_url", "database"]
