"""Deribit v2: spot books and price indexes over JSON-RPC."""
