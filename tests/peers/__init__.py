"""Clients of others that the tests run against our servers."""
