"""Binance's list of spot instruments (rest-api.md, exchangeInfo)."""

from decimal import Decimal

import msgspec

from exchanges.binance.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://api.binance.com/api/v3/exchangeInfo"


class _Filter(msgspec.Struct):
    filterType: str  # noqa: N815 -- the venue's name
    tickSize: Decimal = Decimal(0)  # noqa: N815 -- likewise
    stepSize: Decimal = Decimal(0)  # noqa: N815 -- likewise
    minQty: Decimal = Decimal(0)  # noqa: N815 -- likewise


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    baseAsset: str  # noqa: N815 -- the venue's name
    quoteAsset: str  # noqa: N815 -- likewise
    filters: list[_Filter]


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


_exchange_info = msgspec.json.Decoder(_ExchangeInfo)


def parse(body: bytes) -> list[Listed]:
    """Return what the list says. Raises msgspec.MsgspecError where it is none."""
    return [_listed(symbol) for symbol in _exchange_info.decode(body).symbols]


def _listed(symbol: _Symbol) -> Listed:
    price = next((each for each in symbol.filters if each.filterType == "PRICE_FILTER"), None)
    lot = next((each for each in symbol.filters if each.filterType == "LOT_SIZE"), None)
    tick, step = (price.tickSize if price else Decimal(0)), (lot.stepSize if lot else Decimal(0))
    product = Product(
        VENUE, symbol.symbol, tick.normalize(), step.normalize(), (lot.minQty if lot else step).normalize()
    )
    # A filter of 0 sets no step, and a book without one cannot be scaled.
    return Listed(symbol.baseAsset, symbol.quoteAsset, product, symbol.status == "TRADING" and bool(tick and step))
