"""HTX's candles over REST (huobiapi/docs, /market/history/kline): the newest ones up to 2,000, newest first."""

from decimal import Decimal

import msgspec

from exchanges.pasts import SECOND_US, AnswerError, Past
from models.domain.pasts import PastCandle

# By their length in seconds. Days are left out: they begin at midnight in Hong Kong.
NAMES = {60: "1min", 300: "5min", 900: "15min", 3_600: "60min", 14_400: "4hour"}
PAGE = 2_000


class _Candle(msgspec.Struct):
    """`id` is the open time in seconds, `amount` the base volume, `vol` the quote volume."""

    id: int
    open: Decimal
    close: Decimal
    low: Decimal
    high: Decimal
    amount: Decimal
    vol: Decimal
    count: int


class _Answer(msgspec.Struct, rename="kebab"):
    status: str
    data: list[_Candle] = []
    err_code: str = ""
    err_msg: str = ""


_answer = msgspec.json.Decoder(_Answer)


def request(product_id: str, interval_s: int, start_us: int, _end_us: int, now_us: int) -> str:
    """Return the path of the candles from a time to now; the one that is still made is among them."""
    size = min(PAGE, (now_us - start_us) // (interval_s * SECOND_US) + 1)
    return f"/market/history/kline?symbol={product_id}&period={NAMES[interval_s]}&size={size}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says. Raises AnswerError for a complaint, msgspec.MsgspecError where it is none."""
    answer = _answer.decode(body)
    if answer.status != "ok":
        raise AnswerError(f"{answer.err_code}: {answer.err_msg}", crowded="too-many" in answer.err_code)
    return [
        PastCandle(each.id * SECOND_US, each.open, each.high, each.low, each.close, each.amount, each.vol, each.count)
        for each in answer.data
    ]


PAST = Past("https://api.huobi.pro", NAMES, PAGE, 0.15, request, parse, newest_only=True)  # of 10 a second
