"""Coinbase Exchange's frames, in its own field names. Prices and sizes are texts, and stay so here."""

from typing import Literal

import msgspec

from exchanges.protocol import AwareTime

Side = Literal["buy", "sell"]


class Channel(msgspec.Struct, frozen=True):
    """A channel in the list of what is subscribed."""

    name: str
    product_ids: list[str]


class Subscriptions(msgspec.Struct, frozen=True, tag_field="type", tag="subscriptions"):
    """The full list of what is now subscribed."""

    channels: list[Channel]


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """A complaint; the connection stays."""

    message: str
    reason: str = ""


class Match(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="match"):
    """One trade. `side` is the maker's: "buy" means that the taker sold."""

    trade_id: int
    side: Side
    size: str
    price: str
    product_id: str
    time: AwareTime


class LastMatch(Match, frozen=True, gc=False, tag="last_match"):
    """The last trade before the subscription, once a product."""


class Ticker(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="ticker"):
    """Prices as of the last trade, and so no live best bid and ask. Sizes were not sent before 2022."""

    product_id: str
    price: str
    best_bid: str
    best_ask: str
    time: AwareTime | None = None
    best_bid_size: str | None = None
    best_ask_size: str | None = None


class Snapshot(msgspec.Struct, frozen=True, tag_field="type", tag="snapshot"):
    """The whole book."""

    product_id: str
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    time: AwareTime | None = None


class L2Update(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="l2update"):
    """Changes of the book: side, price and what the level holds now; 0 deletes it."""

    product_id: str
    changes: list[tuple[str, str, str]]
    time: AwareTime | None = None


class Heartbeat(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="heartbeat"):
    """Once a second for each product, with the id of its last trade."""

    product_id: str
    last_trade_id: int


class Other(msgspec.Struct, frozen=True):
    """Only the type, of a frame that is none of the above or not as it should be."""

    type: str


Message = L2Update | Match | Ticker | Heartbeat | Snapshot | LastMatch | Subscriptions | Error
