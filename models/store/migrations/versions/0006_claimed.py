"""When a job was claimed last, so that the sweeper can tell a backlog that is worked from one that is forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and its index; jobs that carry orders are not in it."""
    op.add_column("jobs", sa.Column("claimed_us", sa.BigInteger()))
    claimed = sa.text("claimed_us IS NOT NULL")
    op.create_index("jobs_claimed", "jobs", ["claimed_us"], sqlite_where=claimed, postgresql_where=claimed)


def downgrade() -> None:
    """Drop both."""
    op.drop_index("jobs_claimed", "jobs")
    op.drop_column("jobs", "claimed_us")
