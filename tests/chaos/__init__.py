"""Chaos: the whole system under load, while a seeded schedule kills, stops, starves and cuts off its parts."""
