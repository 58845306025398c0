"""Kraken's candles over REST (docs.kraken.com, public/OHLC): the newest 720, the last of which is still made."""

from decimal import Decimal

import msgspec

from exchanges.kraken.products import COMMON
from exchanges.pasts import SECOND_US, AnswerError, Past
from models.domain.pasts import PastCandle

# By their length in seconds: minutes there.
NAMES = {60: "1", 300: "5", 900: "15", 3_600: "60", 14_400: "240", 86_400: "1440"}
PAGE = 720

_OWN = {common: own for own, common in COMMON.items()}  # REST has the names of API v1


class _Candle(msgspec.Struct, array_like=True):
    time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    vwap: Decimal
    volume: Decimal
    trades: int


class _Answer(msgspec.Struct):
    error: list[str]
    result: dict[str, msgspec.Raw] = {}


_answer, _candles = msgspec.json.Decoder(_Answer), msgspec.json.Decoder(list[_Candle])


def request(product_id: str, interval_s: int, start_us: int, _end_us: int, _now_us: int) -> str:
    """Return the path of the candles since a time, which itself is left out."""
    base, _, quote = product_id.partition("/")
    pair = "".join(_OWN.get(asset, asset) for asset in (base, quote))
    return f"/0/public/OHLC?pair={pair}&interval={NAMES[interval_s]}&since={start_us // SECOND_US - 1}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says of the one pair in it, whatever its name there.

    Raises AnswerError for a complaint, which comes with the status 200, and msgspec.MsgspecError where it is none.
    """
    answer = _answer.decode(body)
    if answer.error:
        crowded = any("Too many requests" in each or "Rate limit" in each for each in answer.error)
        raise AnswerError(", ".join(answer.error), crowded=crowded)
    pairs = [told for name, told in answer.result.items() if name != "last"]
    if len(pairs) != 1:
        raise msgspec.ValidationError(f"candles of {len(pairs)} pairs")
    return [
        PastCandle(each.time * SECOND_US, each.open, each.high, each.low, each.close, each.volume, trades=each.trades)
        for each in _candles.decode(pairs[0])
    ]


# One request a second for each address and pair.
PAST = Past("https://api.kraken.com", NAMES, PAGE, 1.0, request, parse, newest_only=True)
