"""Records: what the audit log says of each outcome, and the chain that they hang in. Pure.

A record says all that an outcome was made of. Records of a shard are numbered from 1, and each hash covers the
one before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from models.domain.ledger import RULE_VERSION
from models.domain.orders import OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Outcome

GENESIS = "0" * 64  # what the first record of a chain has for the hash before it


class AuditedSplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split with its whole provenance, as the table `splits` and the records both have it."""

    id: str
    order_seq: int
    venue: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    token: int
    quote_number: int
    shown: Decimal
    taken_before: Decimal
    exchange_time_us: int | None
    received_time_us: int
    created_us: int
    market: str

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Shard, epoch, outcome number and index, from the id; of zeros less one where it is no such id."""
        parts = self.id.split("-")
        if len(parts) != 4 or not all(part.isdecimal() for part in parts):  # noqa: PLR2004 -- these four
            return (-1, -1, -1, -1)
        shard, epoch, number, index = map(int, parts)
        return shard, epoch, number, index

    @property
    def level(self) -> tuple[str, str, Side, Decimal]:
        """What it was taken from."""
        return self.venue, self.product_id, self.side, self.price


class AuditedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order as it was accepted; `seq` is the accept sequence, `venues` None for all that list the symbol."""

    seq: int
    id: str
    symbol: str
    side: Side
    limit: Decimal
    size: Decimal
    time_in_force: TimeInForce
    venues: tuple[str, ...] | None
    deadline_us: int | None


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far an order is."""

    state: OrderState
    filled_size: Decimal
    filled_value: Decimal
    reason: Reason | None = None
    avg_price: Decimal | None = None


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome. `number` counts the outcomes of an epoch; the fee is of price times size."""

    rules: int
    epoch: int
    number: int
    time_us: int
    market: str
    fee_bps: Decimal
    order: AuditedOrder
    before: Progress
    after: Progress
    splits: tuple[AuditedSplit, ...]


def record_of(
    outcome: Outcome,
    epoch: int,
    number: int,
    fee_bps: Decimal,
    market: str,
    after: Mapping[str, Any],
    splits: Sequence[Mapping[str, Any]],
) -> str:
    """Return an outcome's record as JSON: sorted keys, no spaces, decimals as texts.

    `splits` are the rows that go into the table; `after` has those of Progress's names among its values.
    """
    order = outcome.order
    record = {
        "rules": RULE_VERSION,
        "epoch": epoch,
        "number": number,
        "time_us": outcome.time_us,
        "market": market,
        "fee_bps": fee_bps,
        "order": {
            "seq": order.seq,
            "id": order.id,
            "symbol": order.symbol,
            "side": order.side,
            "limit": order.price,
            "size": order.size,
            "time_in_force": order.time_in_force,
            "venues": sorted(order.venues) if order.venues else None,
            "deadline_us": order.deadline_us,
        },
        "before": {"state": order.state, "filled_size": order.filled_size, "filled_value": order.filled_value},
        "after": {name: after[name] for name in _PROGRESS_FIELDS},
        "splits": splits,
    }
    return _ENCODER.encode(record).decode()


_PROGRESS_FIELDS = Progress.__struct_fields__
_ENCODER = msgspec.json.Encoder(order="sorted")


def read_record(text: str) -> Record:
    """Return the record of a text. Raises ValueError where it is none."""
    return _DECODER.decode(text)


_DECODER = msgspec.json.Decoder(Record)


def chained(previous: str, shard: int, number: int, record: str) -> str:
    """Return a record's hash: SHA-256 in hex of the hash before it, shard, number and record, a line each."""
    return sha256(f"{previous}\n{shard}\n{number}\n{record}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a shard's chain; number 0 where there is none. `time_us` is that of its outcome."""

    shard: int
    number: int
    hash: str
    time_us: int | None = None

    def __str__(self) -> str:
        """Write it as `crossfill audit verify --head` reads it."""
        return f"{self.shard}:{self.number}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Link:
    """A row of the audit log."""

    shard: int
    number: int
    order_seq: int
    record: str
    previous: str
    hash: str

    @property
    def id(self) -> str:
        """What sentences call it."""
        return f"record {self.number} of shard {self.shard}"
