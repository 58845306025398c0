"""OKX v5's spot market data."""
