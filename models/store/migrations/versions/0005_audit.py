"""The audit log: a hash chain of outcomes for each shard, with its head in the shard's row."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

HEAD = ("audit_number", "audit_hash", "audit_time_us", "audit_epoch")


def upgrade() -> None:
    """Make the table and the heads; what was filled under the epochs so far stays outside of the chain."""
    op.create_table(
        "audit",
        sa.Column("shard", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("order_seq", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("audit_order", "audit", ["order_seq"])
    op.add_column("shards", sa.Column("audit_number", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("audit_hash", sa.String(64), nullable=False, server_default="0" * 64))
    op.add_column("shards", sa.Column("audit_time_us", sa.BigInteger()))
    op.add_column("shards", sa.Column("audit_epoch", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE shards SET audit_epoch = epoch")
    op.execute(
        "INSERT INTO meta (key, value) SELECT 'audit_after_seq', CAST(COALESCE(MAX(seq), 0) AS VARCHAR(32)) FROM orders"
    )


def downgrade() -> None:
    """Drop them."""
    op.execute("DELETE FROM meta WHERE key = 'audit_after_seq'")
    for column in HEAD:
        op.drop_column("shards", column)
    op.drop_table("audit")
