"""The shared heart: the pure domain, the durable store, the bus, the settings."""
