"""Deribit's candles over REST (docs.deribit.com, public/get_tradingview_chart_data): columns, oldest first."""

from decimal import Decimal

import msgspec

from exchanges.deribit.protocol import TOO_MANY_REQUESTS
from exchanges.deribit.wire import Milliseconds
from exchanges.pasts import AnswerError, Past
from models.domain.pasts import PastCandle

# By their length in seconds: minutes there; there are none of four hours.
NAMES = {60: "1", 300: "5", 900: "15", 3_600: "60", 86_400: "1D"}
PAGE = 1_000


class _Columns(msgspec.Struct):
    """Of a spot product `volume` is in the base asset and `cost` in the quote asset; `ticks` are open times."""

    status: str
    ticks: list[Milliseconds] = []
    open: list[Decimal] = []
    high: list[Decimal] = []
    low: list[Decimal] = []
    close: list[Decimal] = []
    volume: list[Decimal] = []
    cost: list[Decimal] = []


class _Error(msgspec.Struct):
    message: str
    code: int = 0


class _Answer(msgspec.Struct):
    result: _Columns | None = None
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer)


def request(product_id: str, interval_s: int, start_us: int, end_us: int, _now_us: int) -> str:
    """Return the path of a page of candles."""
    times = f"start_timestamp={start_us // 1_000}&end_timestamp={end_us // 1_000 - 1}"
    path = "/api/v2/public/get_tradingview_chart_data"
    return f"{path}?instrument_name={product_id}&{times}&resolution={NAMES[interval_s]}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says.

    Raises AnswerError for a complaint, msgspec.MsgspecError, or ValueError where a column is shorter than another.
    """
    answer = _answer.decode(body)
    if answer.error is not None:
        raise AnswerError(answer.error.message, crowded=answer.error.code == TOO_MANY_REQUESTS)
    if answer.result is None or answer.result.status not in ("ok", "no_data"):
        raise msgspec.ValidationError("neither candles nor an error")
    told = answer.result
    columns = (told.ticks, told.open, told.high, told.low, told.close, told.volume, told.cost)
    return [PastCandle(time * 1_000, *rest) for time, *rest in zip(*columns, strict=True)]


PAST = Past("https://www.deribit.com", NAMES, PAGE, 0.1, request, parse)
