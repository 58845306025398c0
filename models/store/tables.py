"""The durable record, as tables.

Times are integers of microseconds since the epoch, UTC: they compare and index the same way in
SQLite and PostgreSQL. Prices and sizes are exact: text in SQLite, NUMERIC in PostgreSQL. Foreign keys
are checked by SQLite alone (docs/adr/0017).
"""

from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

from models.domain.decimals import plain


class Money(TypeDecorator[Decimal]):
    """An exact decimal number: NUMERIC where the database has it, plain text in SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        kind: TypeEngine[Any] = Numeric() if dialect.name == "postgresql" else Text()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Decimal | str | None:
        if value is None or dialect.name == "postgresql":
            return value
        return plain(value)

    def process_result_value(self, value: Decimal | str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002 -- SQLAlchemy's signature
        return None if value is None else Decimal(value)


metadata = MetaData()
# SQLite numbers rows by itself only in a column of exactly INTEGER.
Serial = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("key", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

owners = Table(
    "owners",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("event_seq", BigInteger, nullable=False, default=0),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner_id", ForeignKey("owners.id"), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("task_id", String(64)),
    Column("worker", String(64)),  # who claimed it last; orders are worked by the book
    Column("attempts", Integer, nullable=False, default=0),
    Column("lease_until_us", BigInteger),
    Column("claimed_us", BigInteger),  # the last time
    Column("due_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("payload", JSON, nullable=False),
    Column("progress", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("error", Text),
    Index("jobs_owner", "owner_id", "id"),
    # What workers claim. Orders are not in it: the book finds those by shard.
    Index(
        "jobs_due",
        "due_us",
        sqlite_where=Column("ended_us").is_(None) & (Column("kind") != "order"),
        postgresql_where=Column("ended_us").is_(None) & (Column("kind") != "order"),
    ),
    # Whether any was claimed of late; orders never are.
    Index(
        "jobs_claimed",
        "claimed_us",
        sqlite_where=Column("claimed_us").is_not(None),
        postgresql_where=Column("claimed_us").is_not(None),
    ),
)

orders = Table(
    "orders",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False, unique=True),
    Column("owner_id", ForeignKey("owners.id"), nullable=False),
    Column("shard", Integer, nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("side", String(4), nullable=False),
    Column("price", Money, nullable=False),
    Column("size", Money, nullable=False),
    Column("time_in_force", String(3), nullable=False),
    Column("venues", Text),  # comma-joined, sorted; NULL: every venue that lists the symbol
    Column("client_order_id", String(64)),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("filled_size", Money, nullable=False),
    Column("filled_value", Money, nullable=False),  # sum of price * size over the splits
    Column("avg_price", Money),  # value / size to 28 digits: SQLite cannot divide its exact text
    Column("market", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("deadline_us", BigInteger),
    Column("cancel_us", BigInteger),  # when a cancel was asked for
    Column("ended_us", BigInteger),
    UniqueConstraint("owner_id", "client_order_id", name="orders_client_order_id"),
    # The loop asks for what is open in its shard, in accept order. A partial index, so that it
    # stays as small as the book whatever the history weighs.
    Index(
        "orders_open",
        "shard",
        "state",
        "seq",
        sqlite_where=Column("ended_us").is_(None),
        postgresql_where=Column("ended_us").is_(None),
    ),
    Index(
        "orders_cancel",
        "shard",
        "seq",
        sqlite_where=Column("cancel_us").is_not(None) & Column("ended_us").is_(None),
        postgresql_where=Column("cancel_us").is_not(None) & Column("ended_us").is_(None),
    ),
    Index("orders_owner", "owner_id", "seq"),
    sqlite_autoincrement=True,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner_id", ForeignKey("owners.id"), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

splits = Table(
    "splits",
    metadata,
    Column("id", String(64), primary_key=True),  # shard-epoch-outcome-index
    Column("order_seq", ForeignKey("orders.seq"), nullable=False),
    Column("venue", String(16), nullable=False),
    Column("product_id", String(32), nullable=False),
    Column("side", String(4), nullable=False),  # of the order
    Column("price", Money, nullable=False),
    Column("size", Money, nullable=False),
    Column("fee", Money, nullable=False),
    # Where it comes from: the quote, what its level showed, and what had been taken before.
    Column("token", BigInteger, nullable=False),
    Column("quote_number", BigInteger, nullable=False),
    Column("shown", Money, nullable=False),
    Column("taken_before", Money, nullable=False),
    Column("exchange_time_us", BigInteger),
    Column("received_time_us", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),  # the step's time
    Column("market", String(16), nullable=False),
    Index("splits_order", "order_seq"),
)

levels = Table(
    "levels",
    metadata,
    Column("venue", String(16), primary_key=True),
    Column("product_id", String(32), primary_key=True),
    Column("side", String(4), primary_key=True),  # of the orders that take it: "sell" takes bids
    Column("price", Money, primary_key=True),
    Column("shard", Integer, nullable=False, index=True),
    Column("taken", Money, nullable=False),
)

shards = Table(
    "shards",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(64)),
    Column("epoch", BigInteger, nullable=False, default=0),
    Column("lease_until_us", BigInteger, nullable=False, default=0),
    # The head of its audit log, and the last epoch from before there was one.
    Column("audit_number", BigInteger, nullable=False, server_default="0"),
    Column("audit_hash", String(64), nullable=False, server_default="0" * 64),
    Column("audit_time_us", BigInteger),
    Column("audit_epoch", BigInteger, nullable=False, server_default="0"),
)

audit = Table(
    "audit",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, ... without a hole
    Column("order_seq", BigInteger, nullable=False),  # of the order in the record, for look-ups
    Column("record", Text, nullable=False),  # canonical JSON, as it was hashed
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_order", "order_seq"),
)

processes = Table(
    "processes",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # fulfilment | jobs | notifier | collector:binance
    Column("seen_us", BigInteger, nullable=False),
    Column("started_us", BigInteger, nullable=False),
)

venues = Table(
    "venues",
    metadata,
    Column("venue", String(16), primary_key=True),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("token", BigInteger, nullable=False, default=0),  # the highest connection token given out
)

listings = Table(
    "listings",
    metadata,
    Column("venue", String(16), primary_key=True),
    Column("product_id", String(32), primary_key=True),
    Column("base", String(16), nullable=False),
    Column("quote", String(16), nullable=False),
    Column("tick", Money, nullable=False),  # this and the lot: the finest that orders may have been accepted in
    Column("lot", Money, nullable=False),
    Column("min_size", Money, nullable=False),
    Column("trading", Boolean, nullable=False),
    Column("seen_us", BigInteger, nullable=False),  # when the venue's list had it
)

events = Table(
    "events",
    metadata,
    Column("owner_id", String(64), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("type", String(32), nullable=False),
    Column("created_us", BigInteger, nullable=False, index=True),
    Column("job_id", String(36), nullable=False),
    Column("order_id", String(36)),
    Column("payload", JSON, nullable=False),
)

# What was traded, and what strategies made of it. `venue` is "all" for all of them together.
candles = Table(
    "candles",
    metadata,
    Column("market", String(16), primary_key=True),
    Column("venue", String(16), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("interval_s", Integer, primary_key=True, autoincrement=False),
    # Of these two: a series' newest revisions in a range are read from the key alone, in either direction.
    Column("open_time_us", BigInteger, primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("open", Money, nullable=False),
    Column("high", Money, nullable=False),
    Column("low", Money, nullable=False),
    Column("close", Money, nullable=False),
    Column("volume", Money, nullable=False),
    Column("quote_volume", Money, nullable=False),
    Column("taker_buy_volume", Money, nullable=False),
    Column("trades", Integer, nullable=False),
    Column("incomplete", Boolean, nullable=False),
    sqlite_with_rowid=False,  # rows lie in the order of the key, as they are read
)

candle_checks = Table(
    "candle_checks",
    metadata,
    Column("market", String(16), primary_key=True),
    Column("venue", String(16), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("interval_s", Integer, primary_key=True, autoincrement=False),
    Column("compared", BigInteger, nullable=False),  # of our candles with the venue's own
    Column("differing", BigInteger, nullable=False),
    Column("difference", JSON(none_as_null=True)),  # the last one
    Column("difference_us", BigInteger),  # when it was found
)

# What venues tell of their past over REST; beside our own candles, never among them.
venue_candles = Table(
    "venue_candles",
    metadata,
    Column("market", String(16), primary_key=True),
    Column("venue", String(16), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("interval_s", Integer, primary_key=True, autoincrement=False),
    Column("open_time_us", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, Money, nullable=False) for name in ("open", "high", "low", "close", "volume")),
    Column("quote_volume", Money),  # this and the trades: where the venue tells them
    Column("trades", Integer),
    sqlite_with_rowid=False,
)

# How much of its past is known of each series that a strategy follows, and when to look again.
pasts = Table(
    "pasts",
    metadata,
    Column("market", String(16), primary_key=True),
    Column("venue", String(16), primary_key=True),
    Column("symbol", String(32), primary_key=True),
    Column("interval_s", Integer, primary_key=True, autoincrement=False),
    Column("from_us", BigInteger, nullable=False),  # the venue was asked for what ours lack from here
    Column("until_us", BigInteger, nullable=False),  # until there
    Column("wanted", Integer, nullable=False),  # closes, at the last look
    Column("closes", Integer, nullable=False),  # of them that were known
    Column("due_us", BigInteger, nullable=False),  # of the next look
    Column("attempts", Integer, nullable=False),  # that failed, since one did not
    Column("problem", Text),  # why the last one did
    Column("changed_us", BigInteger, nullable=False),  # when the number of closes last changed at a look
)

strategies = Table(
    "strategies",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),  # 1, 2, ...; one never changes
    Column("config", JSON, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("stopped_us", BigInteger),  # of the newest version: since then nothing is raised
)

signals = Table(
    "signals",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("market", String(16), nullable=False),
    Column("strategy", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("variant", String(64), nullable=False),
    Column("venue", String(16), nullable=False),
    Column("symbol", String(32), nullable=False),
    Column("interval_s", Integer, nullable=False),
    Column("open_time_us", BigInteger, nullable=False),
    Column("cross", String(16), nullable=False),
    Column("close", Money, nullable=False),
    Column("fast", Money, nullable=False),
    Column("slow", Money, nullable=False),
    Column("raised_us", BigInteger, nullable=False),
    UniqueConstraint(
        *("market", "strategy", "version", "variant", "venue", "symbol", "interval_s", "open_time_us"),
        name="signals_once",
    ),
    Index("signals_symbol", "market", "symbol", "id"),
    sqlite_autoincrement=True,
)
