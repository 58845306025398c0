"""Kraken's list of pairs (docs.kraken.com, REST, public/AssetPairs)."""

from decimal import Decimal
from typing import Annotated

import msgspec

from exchanges.kraken.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://api.kraken.com/0/public/AssetPairs"
# The list has the names of API v1 to this day, in `wsname` too.
COMMON = {"XBT": "BTC", "XDG": "DOGE"}

Decimals = Annotated[int, msgspec.Meta(ge=0, le=30)]


class _Pair(msgspec.Struct):
    pair_decimals: Decimals
    lot_decimals: Decimals
    wsname: str | None = None  # dark pools have none
    tick_size: Decimal | None = None  # not sent in 2021
    ordermin: Decimal | None = None
    status: str = "online"  # likewise


class _AssetPairs(msgspec.Struct):
    result: dict[str, _Pair]


_asset_pairs = msgspec.json.Decoder(_AssetPairs)


def parse(body: bytes) -> list[Listed]:
    """Return what the list says, in the names of API v2. Raises msgspec.MsgspecError where it is none."""
    return [_listed(pair.wsname, pair) for pair in _asset_pairs.decode(body).result.values() if pair.wsname]


def _listed(name: str, pair: _Pair) -> Listed:
    base, _, quote = name.partition("/")
    base, quote = COMMON.get(base, base), COMMON.get(quote, quote)
    tick, lot = pair.tick_size or Decimal(1).scaleb(-pair.pair_decimals), Decimal(1).scaleb(-pair.lot_decimals)
    product = Product(VENUE, f"{base}/{quote}", tick, lot, pair.ordermin or lot)
    return Listed(base, quote, product, pair.status == "online")
