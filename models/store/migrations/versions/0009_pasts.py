"""What venues tell of their past, and how much of it is known."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MONEY = sa.Numeric().with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "venue_candles",
        *_series(),
        sa.Column("open_time_us", sa.BigInteger(), primary_key=True, autoincrement=False),
        *(sa.Column(name, MONEY, nullable=False) for name in ("open", "high", "low", "close", "volume")),
        sa.Column("quote_volume", MONEY),
        sa.Column("trades", sa.Integer()),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pasts",
        *_series(),
        sa.Column("from_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("closes", sa.Integer(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
    )


def _series() -> list[sa.Column[object]]:
    return [
        sa.Column("market", sa.String(16), primary_key=True),
        sa.Column("venue", sa.String(16), primary_key=True),
        sa.Column("symbol", sa.String(32), primary_key=True),
        sa.Column("interval_s", sa.Integer(), primary_key=True, autoincrement=False),
    ]


def downgrade() -> None:
    """Drop them."""
    for table in ("pasts", "venue_candles"):
        op.drop_table(table)
