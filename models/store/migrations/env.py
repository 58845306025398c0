"""Where Alembic meets our database: models.store.schema hands over a connection in a write transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
