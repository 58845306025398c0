"""The names of rooms."""

import pytest

from models.domain.candles import INTERVALS_S
from models.domain.instruments import INSTRUMENTS
from notifier.rooms import RoomError, rooms_of

PRICE = "price:BTC-USDT"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (PRICE, [PRICE]),
        ({"rooms": PRICE}, [PRICE]),
        ({"rooms": ["Price:btcusdt", "price:BTC/USDT"]}, [PRICE]),
        (
            ["candle:xbtusd:1m", "signal:LTC_BTC", "vwap:ltcbtc"],
            ["candle:BTC-USD:1m", "signal:LTC-BTC", "vwap:LTC-BTC"],
        ),
    ],
)
def test_a_room_has_one_name(given: object, names: list[str]) -> None:
    """Whatever the spelling; each is named once."""
    assert [str(name) for name in rooms_of(given, INSTRUMENTS)] == names


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["owner:local"],
            "'owner:local' is no room; rooms are price:PAIR, vwap:PAIR, candle:PAIR:INTERVAL and signal:PAIR",
        ),
        (["price:BTC-USDTT"], "'price:BTC-USDTT': unknown symbol 'BTC-USDTT'; did you mean BTC-USDT"),
        (["candle:BTC-USDT:2m"], f"there is no interval '2m'; there are {', '.join(INTERVALS_S)}"),
        (["candle:BTC-USDT"], "a candle room is candle:PAIR:INTERVAL"),
        (["price:BTC-USDT:1m"], "a price room is price:PAIR"),
        ([PRICE, "price:NO-SUCH"], "unknown symbol"),
        ([7], "'7' is no text"),
        ([], 'give {"rooms": ["price:BTC-USDT", ...]}'),
        ({"room": PRICE}, 'give {"rooms": ["price:BTC-USDT", ...]}'),
        ([PRICE] * 101, "101 rooms are more than the 100"),
        (["price:" + "A" * 60_000], "unknown symbol"),
    ],
)
def test_a_name_that_is_wrong_is_told_what_is_right(given: object, words: str) -> None:
    """In one short sentence."""
    with pytest.raises(RoomError) as refused:
        rooms_of(given, INSTRUMENTS)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300
