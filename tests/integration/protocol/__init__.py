"""The whole protocol, at random, by seed, in one thread with simulated time."""
