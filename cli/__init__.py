"""The `crossfill` command: run everything, place orders, follow them."""
