"""HTX's list of spot symbols (huobiapi/docs, /v1/common/symbols)."""

from decimal import Decimal
from typing import Annotated

import msgspec

from exchanges.htx.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://api.huobi.pro/v1/common/symbols"

Decimals = Annotated[int, msgspec.Meta(ge=0, le=30)]  # the number of digits after the point


class _Symbol(msgspec.Struct, rename="kebab"):
    symbol: str
    base_currency: str
    quote_currency: str
    price_precision: Decimals
    amount_precision: Decimals
    min_order_amt: Decimal
    state: str


class _Symbols(msgspec.Struct):
    data: list[_Symbol]


_symbols = msgspec.json.Decoder(_Symbols)


def parse(body: bytes) -> list[Listed]:
    """Return what the list says. Raises msgspec.MsgspecError where it is none."""
    return [
        Listed(
            each.base_currency.upper(),
            each.quote_currency.upper(),
            Product(VENUE, each.symbol, _step(each.price_precision), _step(each.amount_precision), each.min_order_amt),
            each.state == "online",
        )
        for each in _symbols.decode(body).data
    ]


def _step(decimals: int) -> Decimal:
    return Decimal((0, (1,), -decimals))
