"""HTX (once Huobi), spot."""
