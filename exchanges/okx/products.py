"""OKX's list of spot instruments (www.okx.com/docs-v5, REST, public/instruments)."""

from decimal import Decimal

import msgspec

from exchanges.okx.protocol import VENUE
from models.domain.instruments import Listed, Product

URL = "https://www.okx.com/api/v5/public/instruments?instType=SPOT"
TAKEN = "0"  # the code of an answer without complaint


class _Instrument(msgspec.Struct):
    instType: str  # noqa: N815 -- the venue's name
    instId: str  # noqa: N815 -- likewise
    state: str
    baseCcy: str = ""  # noqa: N815 -- likewise; derivatives have none
    quoteCcy: str = ""  # noqa: N815 -- likewise
    tickSz: str = ""  # noqa: N815 -- likewise; "" before an instrument is opened
    lotSz: str = ""  # noqa: N815 -- likewise
    minSz: str = ""  # noqa: N815 -- likewise


class _Answer(msgspec.Struct):
    code: str
    data: list[_Instrument]
    msg: str = ""


_answer = msgspec.json.Decoder(_Answer)


def parse(body: bytes) -> list[Listed]:
    """Return what the list says of spot. Raises msgspec.MsgspecError where it is none."""
    answer = _answer.decode(body)
    if answer.code != TAKEN:
        raise msgspec.ValidationError(f"code {answer.code}: {answer.msg}")
    return [_listed(each) for each in answer.data if each.instType == "SPOT"]


def _listed(instrument: _Instrument) -> Listed:
    steps = (instrument.tickSz, instrument.lotSz, instrument.minSz)
    tick, lot, least = (msgspec.convert(text or "0", Decimal) for text in steps)
    product = Product(VENUE, instrument.instId, tick, lot, least)
    # A book without steps cannot be scaled.
    return Listed(instrument.baseCcy, instrument.quoteCcy, product, instrument.state == "live" and bool(tick and lot))
