"""Socket.IO: each owner's events, replayed from a cursor and live, without holes; and rooms of market data."""
