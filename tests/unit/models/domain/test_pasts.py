"""The past that strategies want: of which series, how much of it is there, and what to ask for next."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.moving_averages import Kind, Seed
from models.domain.pasts import COUNTED_MAX, Followed, followed, known_closes, next_span
from models.domain.strategies import Strategy, Variant

VENUES = ("binance", "kraken", "deribit")
SMALL = {"a": Variant(Kind.SMA, 5, 20), "b": Variant(Kind.EMA, 5, 20, Seed.SMA)}
HOUR_US = 3_600_000_000


def candle(hour: int, trades: int = 1, *, incomplete: bool = False) -> Candle:
    values = (*(Decimal(1),) * 4, *(Decimal(0),) * 3, trades, "live")
    return Candle("binance", "BTC-USDT", 3_600, hour * HOUR_US, *values, incomplete=incomplete)


def test_all_venues_together_follow_each_of_them() -> None:
    """Those that are read and trade the pair, before what they come to; as many closes as the longest variant wants."""
    wanted = followed([Strategy("x", SMALL, pairs=("BTC-USDT", "LTC-USDT"))], INSTRUMENTS, VENUES)
    assert list(wanted.items()) == [
        (Followed(venue, symbol, 3_600), 100)
        for symbol, venues in (("BTC-USDT", VENUES), ("LTC-USDT", VENUES[:2]))
        for venue in (*venues, EVERY_VENUE)
    ]


def test_a_venue_is_followed_alone_where_a_strategy_names_it() -> None:
    """For pairs that it trades; the longest of two strategies counts, and no more than can be looked through."""
    short = Strategy("x", {"a": SMALL["a"]}, venue="binance", pairs=("BTC-USDT", "BTC-USD"))
    long = Strategy("y", {"a": Variant(Kind.EMA, 5, 5_000, Seed.SMA)}, venue="binance", pairs=("BTC-USDT",))
    key = Followed("binance", "BTC-USDT", 3_600)
    assert followed([short], INSTRUMENTS, ()) == {key: 20}
    assert followed([short, long], INSTRUMENTS, VENUES) == {key: COUNTED_MAX}
    assert followed([], INSTRUMENTS, VENUES) == {}


def test_without_pairs_every_pair_is_followed() -> None:
    """At a venue that has them."""
    wanted = followed([Strategy("x", SMALL, venue="kraken")], INSTRUMENTS, VENUES)
    assert {each.symbol for each in wanted} == {
        instrument.symbol for instrument in INSTRUMENTS if "kraken" in {book.venue for book in instrument.books}
    }


def test_a_close_is_known_unless_it_only_repeats_the_one_before() -> None:
    """In a quiet hour that is what it was; where nobody looked it is a guess."""
    quiet, guessed, partly = candle(1, 0), candle(2, 0, incomplete=True), candle(3, incomplete=True)
    assert known_closes([candle(0), quiet, guessed, partly]) == 3


def test_what_is_asked_for_next_is_what_was_not_asked_for() -> None:
    """From the first that is lacking to the last; what the venue did not have is not asked for again."""
    assert next_span([10, 20, 40], 0, 0, 10) == (10, 50)
    assert next_span([10, 20, 40], 10, 30, 10) == (40, 50)
    assert next_span([10, 20, 40], 10, 50, 10) is None
    assert next_span([], 10, 50, 10) is None


def test_what_lies_before_it_is_asked_for_from_there_on() -> None:
    """A longer average wants it."""
    assert next_span([10, 20, 40, 90], 30, 80, 10) == (10, 100)


@given(st.sets(st.integers(0, 30)), st.integers(1, 7), st.sets(st.integers(0, 30)))
def test_page_by_page_everything_is_asked_for_once(first: set[int], page: int, second: set[int]) -> None:
    """Whatever is lacking, at first and later, and however much of it the venue has: it comes to an end."""
    from_us = until_us = 0
    for lacking in (sorted(first), sorted(first | second)):
        asked: list[int] = []
        while span := next_span(lacking, from_us, until_us, 1):
            start, end = span[0], min(span[1], span[0] + page)
            from_us, until_us = from_us if until_us and start >= until_us else start, end
            assert not set(range(start, end)) & set(asked)
            asked += range(start, end)
            assert len(asked) <= 31
        assert all(from_us <= each < until_us for each in lacking)
