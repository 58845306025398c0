"""A server that speaks the exchanges' own wire protocols: a seeded market, or recorded sessions, with faults."""
