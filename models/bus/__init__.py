"""What passes through Redis: quotes, latest prices, hints, wake-ups."""
