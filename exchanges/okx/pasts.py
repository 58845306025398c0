"""OKX's candles over REST (www.okx.com/docs-v5, market/history-candles): newest first, 100 an answer."""

from decimal import Decimal

import msgspec

from exchanges.okx.products import TAKEN
from exchanges.pasts import AnswerError, Past
from models.domain.pasts import PastCandle

# By their length in seconds; a day without `utc` begins at midnight in Hong Kong.
NAMES = {60: "1m", 300: "5m", 900: "15m", 3_600: "1H", 14_400: "4H", 86_400: "1Dutc"}
PAGE = 100
CLOSED = "1"
CROWDED = "50011"


class _Candle(msgspec.Struct, array_like=True):
    """Of a spot product `volume` is in the base asset; contracts have it in contracts, and are not asked for."""

    time: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    currency_volume: Decimal
    quote_volume: Decimal
    confirm: str


class _Answer(msgspec.Struct):
    code: str
    data: list[_Candle] = []
    msg: str = ""


_answer = msgspec.json.Decoder(_Answer)


def request(product_id: str, interval_s: int, start_us: int, end_us: int, _now_us: int) -> str:
    """Return the path of a page of candles: `after` means older than, `before` newer, and neither includes its time."""
    times = f"after={end_us // 1_000}&before={start_us // 1_000 - 1}"
    return f"/api/v5/market/history-candles?instId={product_id}&bar={NAMES[interval_s]}&{times}&limit={PAGE}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says of closed candles.

    Raises AnswerError for a complaint, msgspec.MsgspecError or ValueError where it is none.
    """
    answer = _answer.decode(body)
    if answer.code != TAKEN:
        raise AnswerError(f"code {answer.code}: {answer.msg}", crowded=answer.code == CROWDED)
    return [
        PastCandle(int(each.time) * 1_000, each.open, each.high, each.low, each.close, each.volume, each.quote_volume)
        for each in answer.data
        if each.confirm == CLOSED
    ]


PAST = Past("https://www.okx.com", NAMES, PAGE, 0.15, request, parse)  # of 20 in 2 s
