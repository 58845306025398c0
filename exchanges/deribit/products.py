"""Deribit's list of spot instruments (docs.deribit.com, public/get_instruments)."""

from decimal import Decimal

import msgspec

from exchanges.deribit.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://www.deribit.com/api/v2/public/get_instruments?currency=any&kind=spot"


class _Instrument(msgspec.Struct):
    instrument_name: str
    kind: str
    base_currency: str
    quote_currency: str
    tick_size: Decimal
    min_trade_amount: Decimal
    is_active: bool
    contract_size: Decimal | None = None


class _Instruments(msgspec.Struct):
    result: list[_Instrument]


_instruments = msgspec.json.Decoder(_Instruments)


def parse(body: bytes) -> list[Listed]:
    """Return what the list says of spot books. Raises msgspec.MsgspecError where it is none."""
    return [_listed(each) for each in _instruments.decode(body).result if each.kind == "spot"]


def _listed(each: _Instrument) -> Listed:
    lot = each.contract_size or each.min_trade_amount
    product = Product(
        VENUE, each.instrument_name, each.tick_size.normalize(), lot.normalize(), each.min_trade_amount.normalize()
    )
    # A book without steps cannot be scaled.
    return Listed(each.base_currency, each.quote_currency, product, each.is_active and bool(each.tick_size and lot))
