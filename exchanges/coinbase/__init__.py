"""Coinbase Exchange: level2_batch, ticker, matches and heartbeat."""
