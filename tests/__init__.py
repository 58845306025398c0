"""Tests: unit (no sockets), integration (real Redis, database, workers), e2e (the whole system)."""
