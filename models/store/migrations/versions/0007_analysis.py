"""Candles, how they compare with the venues' own, strategies and their signals."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MONEY = sa.Numeric().with_variant(sa.Text(), "sqlite")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "candles",
        *_series(primary_key=True),
        sa.Column("open_time_us", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        *(
            sa.Column(name, MONEY, nullable=False)
            for name in ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")
        ),
        sa.Column("trades", sa.Integer(), nullable=False),
        sa.Column("incomplete", sa.Boolean(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "candle_checks",
        *_series(primary_key=True),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("differing", sa.BigInteger(), nullable=False),
        sa.Column("difference", sa.JSON()),
        sa.Column("difference_us", sa.BigInteger()),
    )
    op.create_table(
        "strategies",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "signals",
        sa.Column("id", SERIAL, primary_key=True, autoincrement=True),
        sa.Column("strategy", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        *_series(primary_key=False),
        sa.Column("open_time_us", sa.BigInteger(), nullable=False),
        sa.Column("cross", sa.String(16), nullable=False),
        *(sa.Column(name, MONEY, nullable=False) for name in ("close", "fast", "slow")),
        sa.Column("raised_us", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint(
            *("market", "strategy", "version", "variant", "venue", "symbol", "interval_s", "open_time_us"),
            name="signals_once",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("signals_symbol", "signals", ["market", "symbol", "id"])


def _series(*, primary_key: bool) -> list[sa.Column[object]]:
    return [
        sa.Column("market", sa.String(16), primary_key=primary_key, nullable=False),
        sa.Column("venue", sa.String(16), primary_key=primary_key, nullable=False),
        sa.Column("symbol", sa.String(32), primary_key=primary_key, nullable=False),
        sa.Column("interval_s", sa.Integer(), primary_key=primary_key, nullable=False, autoincrement=False),
    ]


def downgrade() -> None:
    """Drop them."""
    for table in ("signals", "strategies", "candle_checks", "candles"):
        op.drop_table(table)
