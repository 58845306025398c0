"""Kraken, as seen through its WebSocket API v2."""
