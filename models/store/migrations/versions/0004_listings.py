"""What the venues' own lists of instruments say."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MONEY = sa.Numeric().with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "listings",
        sa.Column("venue", sa.String(16), primary_key=True),
        sa.Column("product_id", sa.String(32), primary_key=True),
        sa.Column("base", sa.String(16), nullable=False),
        sa.Column("quote", sa.String(16), nullable=False),
        sa.Column("tick", MONEY, nullable=False),
        sa.Column("lot", MONEY, nullable=False),
        sa.Column("min_size", MONEY, nullable=False),
        sa.Column("trading", sa.Boolean(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("listings")
