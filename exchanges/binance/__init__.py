"""Binance spot: combined streams of bookTicker and trade."""
