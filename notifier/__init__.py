"""Socket.IO: each owner's events, replayed from a cursor and live, in order and without holes."""
