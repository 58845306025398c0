"""Coinbase Exchange's list of products (docs.cdp.coinbase.com, exchange REST, /products)."""

from decimal import Decimal

import msgspec

from exchanges.coinbase.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://api.exchange.coinbase.com/products"


class _Product(msgspec.Struct):
    id: str
    base_currency: str
    quote_currency: str
    quote_increment: Decimal
    base_increment: Decimal
    status: str
    trading_disabled: bool = False
    base_min_size: Decimal | None = None  # not sent any more since 2022


_products = msgspec.json.Decoder(list[_Product])


def parse(body: bytes) -> list[Listed]:
    """Return what the list says. Raises msgspec.MsgspecError where it is none."""
    return [
        Listed(
            each.base_currency,
            each.quote_currency,
            Product(
                VENUE, each.id, each.quote_increment, each.base_increment, each.base_min_size or each.base_increment
            ),
            each.status == "online" and not each.trading_disabled,
        )
        for each in _products.decode(body)
    ]
