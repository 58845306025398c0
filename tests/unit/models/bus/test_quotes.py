"""What goes over the bus comes out as it went in."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from models.bus.quotes import decode, encode
from models.domain.quotes import BusItem, Mark, Quote, Trade

numbers = st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=8)
times = st.integers(0, 2**53)
texts = st.text(max_size=12)
quotes = st.builds(
    Quote,
    texts,
    texts,
    st.integers(0, 2**53),
    st.integers(0, 2**53),
    *[st.none() | numbers] * 4,
    st.booleans(),
    st.none() | times,
    times,
)
trades = st.builds(
    Trade,
    texts,
    texts,
    times,
    texts,
    numbers,
    numbers,
    st.sampled_from(["buy", "sell"]),
    st.none() | times,
    times,
    st.booleans(),
)
marks = st.builds(Mark, texts, times, times)


@given(st.lists(quotes | trades | marks))
def test_items_survive_the_bus(items: list[BusItem]) -> None:
    """Every field of quotes, trades and marks comes back equal, in order."""
    assert decode(encode(items)) == items


def test_a_price_keeps_its_text() -> None:
    """No float lies between: 28 digits and trailing zeros come back as they were."""
    price, size = Decimal("0.1234567890123456789012345678"), Decimal("1.50000000")
    [item] = decode(encode([Quote("binance", "BTCUSDT", 1, 1, price, size, None, None, True, None, 1)]))
    assert isinstance(item, Quote)
    assert (str(item.bid_price), str(item.bid_size)) == (str(price), str(size))
