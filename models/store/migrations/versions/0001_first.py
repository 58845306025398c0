"""The first schema: owners, jobs, orders, splits, levels, events, and who works on them.

Spelled out, not taken from models.store.tables: a migration never changes once it was released.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger()
MONEY = sa.Numeric().with_variant(sa.Text(), "sqlite")
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _required(name: str, kind: Any, *more: Any, **options: Any) -> sa.Column[Any]:  # noqa: ANN401 -- as of Column
    return sa.Column(name, kind, *more, nullable=False, **options)


def _partial(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def upgrade() -> None:
    """Make every table."""
    op.create_table("meta", _required("key", sa.String(32), primary_key=True), _required("value", sa.Text()))
    op.create_table(
        "owners",
        _required("id", sa.String(64), primary_key=True),
        _required("role", sa.String(16)),
        _required("token_sha256", sa.String(64), unique=True),
        _required("event_seq", BIG),
    )
    _jobs()
    _orders()
    _splits_and_levels()
    _events()
    _workings()


def _jobs() -> None:
    op.create_table(
        "jobs",
        _required("id", sa.String(36), primary_key=True),
        _required("owner_id", sa.String(64), sa.ForeignKey("owners.id")),
        _required("kind", sa.String(32)),
        _required("state", sa.String(16)),
        sa.Column("task_id", sa.String(64)),
        sa.Column("worker", sa.String(64)),
        _required("attempts", sa.Integer()),
        sa.Column("lease_until_us", BIG),
        _required("due_us", BIG),
        _required("created_us", BIG),
        sa.Column("ended_us", BIG),
        _required("payload", sa.JSON()),
        sa.Column("result", sa.JSON()),
        sa.Column("error", sa.Text()),
    )
    op.create_index("jobs_owner", "jobs", ["owner_id", "id"])
    _partial("jobs_due", "jobs", ["due_us"], "ended_us IS NULL AND kind != 'order'")
    op.create_table(
        "idempotency_keys",
        _required("owner_id", sa.String(64), sa.ForeignKey("owners.id"), primary_key=True),
        _required("key", sa.String(255), primary_key=True),
        _required("fingerprint", sa.String(64)),
        _required("job_id", sa.String(36), sa.ForeignKey("jobs.id")),
        _required("created_us", BIG),
    )


def _orders() -> None:
    op.create_table(
        "orders",
        _required("seq", SERIAL, primary_key=True, autoincrement=True),
        _required("id", sa.String(36), unique=True),
        _required("job_id", sa.String(36), sa.ForeignKey("jobs.id"), unique=True),
        _required("owner_id", sa.String(64), sa.ForeignKey("owners.id")),
        _required("shard", sa.Integer()),
        _required("symbol", sa.String(32)),
        _required("side", sa.String(4)),
        _required("price", MONEY),
        _required("size", MONEY),
        _required("time_in_force", sa.String(3)),
        sa.Column("venues", sa.Text()),
        sa.Column("client_order_id", sa.String(64)),
        _required("state", sa.String(16)),
        sa.Column("reason", sa.String(32)),
        _required("filled_size", MONEY),
        _required("filled_value", MONEY),
        sa.Column("avg_price", MONEY),
        _required("market", sa.String(16)),
        _required("created_us", BIG),
        sa.Column("deadline_us", BIG),
        sa.Column("cancel_us", BIG),
        sa.Column("ended_us", BIG),
        sa.UniqueConstraint("owner_id", "client_order_id", name="orders_client_order_id"),
        sqlite_autoincrement=True,
    )
    _partial("orders_open", "orders", ["shard", "state", "seq"], "ended_us IS NULL")
    _partial("orders_cancel", "orders", ["shard", "seq"], "cancel_us IS NOT NULL AND ended_us IS NULL")
    op.create_index("orders_owner", "orders", ["owner_id", "seq"])


def _splits_and_levels() -> None:
    op.create_table(
        "splits",
        _required("id", sa.String(64), primary_key=True),
        _required("order_seq", SERIAL, sa.ForeignKey("orders.seq")),
        _required("venue", sa.String(16)),
        _required("product_id", sa.String(32)),
        _required("side", sa.String(4)),
        _required("price", MONEY),
        _required("size", MONEY),
        _required("fee", MONEY),
        _required("token", BIG),
        _required("quote_number", BIG),
        _required("shown", MONEY),
        _required("taken_before", MONEY),
        sa.Column("exchange_time_us", BIG),
        _required("received_time_us", BIG),
        _required("created_us", BIG),
        _required("market", sa.String(16)),
    )
    op.create_index("splits_order", "splits", ["order_seq"])
    op.create_table(
        "levels",
        _required("venue", sa.String(16), primary_key=True),
        _required("product_id", sa.String(32), primary_key=True),
        _required("side", sa.String(4), primary_key=True),
        _required("price", MONEY, primary_key=True),
        _required("shard", sa.Integer(), index=True),
        _required("taken", MONEY),
    )


def _events() -> None:
    op.create_table(
        "events",
        _required("owner_id", sa.String(64), primary_key=True),
        _required("seq", BIG, primary_key=True, autoincrement=False),
        _required("type", sa.String(32)),
        _required("created_us", BIG, index=True),
        _required("job_id", sa.String(36)),
        sa.Column("order_id", sa.String(36)),
        _required("payload", sa.JSON()),
    )


def _workings() -> None:
    op.create_table(
        "shards",
        _required("shard", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("owner", sa.String(64)),
        _required("epoch", BIG),
        _required("lease_until_us", BIG),
    )
    op.create_table(
        "processes",
        _required("id", sa.String(64), primary_key=True),
        _required("kind", sa.String(16)),
        _required("seen_us", BIG),
        _required("started_us", BIG),
    )
    op.create_table(
        "venues",
        _required("venue", sa.String(16), primary_key=True),
        _required("enabled", sa.Boolean()),
        _required("token", BIG),
    )


def downgrade() -> None:
    """Drop every table, those that refer to others first."""
    for table in ("splits", "levels", "idempotency_keys", "orders", "jobs", "events", "owners"):
        op.drop_table(table)
    for table in ("shards", "processes", "venues", "meta"):
        op.drop_table(table)
