"""On PostgreSQL no foreign keys: what stores a row has its other rows in the same transaction (docs/adr/0017)."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

KEYS = (
    ("jobs", "owner_id", "owners", "id"),
    ("idempotency_keys", "owner_id", "owners", "id"),
    ("idempotency_keys", "job_id", "jobs", "id"),
    ("orders", "job_id", "jobs", "id"),
    ("orders", "owner_id", "owners", "id"),
    ("splits", "order_seq", "orders", "seq"),
)


def upgrade() -> None:
    """Drop them; SQLite looks into an index, which costs nothing that could be measured, and keeps its own."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column, _, _ in KEYS:
        op.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_{column}_fkey"))


def downgrade() -> None:
    """Make them again."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column, other, key in KEYS:
        op.create_foreign_key(f"{table}_{column}_fkey", table, other, [column], [key])
