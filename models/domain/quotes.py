"""What a venue says: best bid and ask, trades, and that its feed is alive.

Prices and sizes are `Decimal`, built from the venue's own text. Times are integers of microseconds
since the epoch, UTC. These are frozen msgspec structs, because millions of them pass a day.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec


class Market(StrEnum):
    """Where prices come from, said in every price and split so that nobody takes one for another."""

    SIMULATED = "simulated"
    REPLAY = "replay"
    LIVE = "live"


class Quote(msgspec.Struct, frozen=True, gc=False, tag="quote", array_like=True):
    """The best bid and ask of one venue product.

    `token` is the collector's connection number from the venue's row in the database, and `number`
    counts that connection's quotes of all products from 1. A side that the venue shows empty has
    price and size None. `live` is False where the venue repeats the best prices only when something
    else happens (a trade, say), or says no sizes: such a quote joins averages and fills nothing.
    `exchange_time_us` is None where the venue sends no event time (Binance bookTicker).
    """

    venue: str
    product_id: str
    token: int
    number: int
    bid_price: Decimal | None
    bid_size: Decimal | None
    ask_price: Decimal | None
    ask_size: Decimal | None
    live: bool
    exchange_time_us: int | None
    received_time_us: int


class Trade(msgspec.Struct, frozen=True, gc=False, tag="trade", array_like=True):
    """One trade. `taker_side` is "buy" or "sell", the side that crossed the spread.

    `trade_id` is the venue's id as text; `before` marks a trade from before the subscription
    (Coinbase `last_match`), which seeds the last price and is no new trade.
    """

    venue: str
    product_id: str
    token: int
    trade_id: str
    price: Decimal
    size: Decimal
    taker_side: str
    exchange_time_us: int | None
    received_time_us: int
    before: bool = False


class Mark(msgspec.Struct, frozen=True, gc=False, tag="mark", array_like=True):
    """A collector's word, twice a second, that it has read something within the venue's limit.

    `missed` names the products of which trades may be missing since the mark before; EVERY_PRODUCT: of any.
    """

    venue: str
    token: int
    marked_time_us: int
    missed: tuple[str, ...] = ()


EVERY_PRODUCT = "*"


BusItem = Quote | Trade | Mark
