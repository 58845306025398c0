"""The durable record: tables, units of work, migrations."""
