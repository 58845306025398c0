from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.registry import LISTS
from models.domain.instruments import (
    ALIASES,
    INSTRUMENTS,
    Instrument,
    Instruments,
    Listed,
    Product,
    UnknownSymbolError,
    common_step,
)
from models.domain.listings import EVIDENCE, LISTINGS
from tests.listings import FILES, recorded_list

ROWS = [line.split() for line in LISTINGS.strip().splitlines()]
# The evidence that is a recorded list, by venue.
RECORDED = {
    "binance": "binance-2021",
    "coinbase": "coinbase-2021",
    "kraken": "kraken-2021",
    "htx": "htx-2021",
    "okx": "okx-2024",
}


# The bundled table


def test_the_table_has_what_it_should() -> None:
    """At least 50 pairs; each row's evidence has its sentence; each product feeds one pair."""
    assert len(list(INSTRUMENTS)) >= 50
    assert {row[-1] for row in ROWS} == set(EVIDENCE)
    assert Counter((row[1], row[2]) for row in ROWS).most_common(1)[0][1] == 1
    assert Counter((row[0], row[1]) for row in ROWS).most_common(1)[0][1] == 1
    products = [product for instrument in INSTRUMENTS for product in instrument.products]
    assert len(products) == len(ROWS)
    assert {product.evidence for product in products} == set(EVIDENCE.values())
    for instrument in INSTRUMENTS:
        assert instrument.books
        for product in instrument.products:
            assert INSTRUMENTS.of_product(product.venue, product.id) is instrument


def test_no_spelling_means_two_pairs() -> None:
    """Also where assets are called as some venues call them."""
    meant: dict[str, set[str]] = {}
    for instrument in INSTRUMENTS:
        for base in {instrument.base, ALIASES.get(instrument.base, instrument.base)}:
            for quote in {instrument.quote, ALIASES.get(instrument.quote, instrument.quote)}:
                meant.setdefault(base + quote, set()).add(instrument.symbol)
    assert {joined: symbols for joined, symbols in meant.items() if len(symbols) > 1} == {}
    for joined, (symbol,) in meant.items():
        assert INSTRUMENTS.resolve(joined).symbol == symbol


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("BTC-USDT", "BTC-USDT"),
        ("BTCUSDT", "BTC-USDT"),
        ("btc/usdt", "BTC-USDT"),
        ("BTC_USDT", "BTC-USDT"),
        (" btc-usdt ", "BTC-USDT"),
        ("XBT/USD", "BTC-USD"),
        ("LTCBTC", "LTC-BTC"),
        ("ltc/xbt", "LTC-BTC"),
        ("xdgusd", "DOGE-USD"),
        ("XDG/XBT", "DOGE-BTC"),
    ],
)
def test_every_spelling_is_taken(text: str, symbol: str) -> None:
    """With or without a separator, in any case, with the names of some venues."""
    assert INSTRUMENTS.resolve(text).symbol == symbol


@pytest.mark.parametrize(("text", "near"), [("LTCBTX", "LTC-BTC"), ("BTC-USDX", "BTC-USD"), ("XBTUSDR", "BTC-USDT")])
def test_a_wrong_spelling_is_told_what_is_near(text: str, near: str) -> None:
    """The closest names, each once."""
    with pytest.raises(UnknownSymbolError, match=f"did you mean .*{near}") as raised:
        INSTRUMENTS.resolve(text)
    assert near in raised.value.near
    assert len(set(raised.value.near)) == len(raised.value.near)


def test_nothing_is_near_to_nonsense() -> None:
    """Then nothing is guessed."""
    with pytest.raises(UnknownSymbolError, match=r"^unknown symbol '~~'$"):
        INSTRUMENTS.resolve("~~")


@pytest.mark.parametrize("venue", FILES)
def test_rows_agree_with_the_recorded_list(venue: str, recordings: Path) -> None:
    """Ids, ticks, lots and least sizes are those of the list that the row names; one tick is finer by now."""
    listed = {each.product.id: each for each in LISTS[venue][1](recorded_list(recordings, venue))}
    rows = [row for row in ROWS if row[1] == venue and row[-1] == RECORDED[venue]]
    assert rows
    for symbol, _, product_id, *steps, _ in rows:
        each = listed[product_id]
        assert (each.symbol, each.trading) == (symbol, True)
        said = [each.product.tick, each.product.lot, each.product.min_size]
        if product_id == "LTCUSDT":
            assert said[0] == Decimal("0.1")
            said[0] = Decimal("0.01")
        assert said == [Decimal(step) for step in steps], symbol


# Refreshed by the venues' lists


def product(
    venue: str, name: str, tick: str = "0.01", lot: str = "0.001", least: str = "1", *, index: bool = False
) -> Product:
    return Product(venue, name, Decimal(tick), Decimal(lot), Decimal(least), index, "bundled")


def listed(
    symbol: str,
    venue: str,
    name: str,
    tick: str = "0.01",
    lot: str = "0.001",
    least: str = "1",
    *,
    trading: bool = True,
) -> Listed:
    base, quote = symbol.split("-")
    return Listed(base, quote, replace(product(venue, name, tick, lot, least), evidence="listed"), trading)


# AAA-USD at x and y and with an index at z; BBB-USD at x alone.
BUNDLE = Instruments(
    [
        Instrument("AAA", "USD", (product("x", "AX"), product("y", "AY", "0.001"), product("z", "iz", index=True))),
        Instrument("BBB", "USD", (product("x", "BX"),)),
    ]
)
B_STAYS = listed("BBB-USD", "x", "BX")
AX, AY = "x AX 0.01 0.001 1", "y AY 0.001 0.001 1"


def shown(instrument: Instrument) -> list[str]:
    return [f"{each.venue} {each.id} {each.tick} {each.lot} {each.min_size}" for each in instrument.books]


@pytest.mark.parametrize(
    ("lists", "books", "steps"),
    [
        pytest.param([], [AX, AY], ("0.001", "0.001"), id="without lists nothing changes"),
        pytest.param([listed("AAA-USD", "x", "AX"), B_STAYS], [AX, AY], ("0.001", "0.001"), id="the same list"),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "0.1", "0.1", "7"), B_STAYS],
            ["x AX 0.01 0.001 7", AY],
            ("0.001", "0.001"),
            id="steps become no coarser, least sizes are the list's",
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "0.0001", "0.00001", "0.5"), B_STAYS],
            ["x AX 0.0001 0.00001 0.5", AY],
            ("0.0001", "0.00001"),
            id="steps become finer",
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "0.004", "0.001"), B_STAYS],
            ["x AX 0.002 0.001 1", AY],
            ("0.001", "0.001"),
            id="both steps are whole numbers of the new one",
        ),
        pytest.param([B_STAYS], [AY], ("0.001", "0.001"), id="what is not in its venue's list is left out"),
        pytest.param(
            [listed("AAA-USD", "x", "AX", trading=False), B_STAYS], [AY], ("0.001", "0.001"), id="what does not trade"
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "0"), B_STAYS], [AY], ("0.001", "0.001"), id="a book without steps is none"
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "NaN"), B_STAYS], [AY], ("0.001", "0.001"), id="nor with steps that are none"
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "1E-13"), B_STAYS], [AY], ("0.001", "0.001"), id="nor with steps too fine"
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", "1E+999999"), B_STAYS], [AY], ("0.001", "0.001"), id="nor with huge ones"
        ),
        pytest.param(
            [listed("AAA-USD", "x", "AX", least="-1"), B_STAYS], [AY], ("0.001", "0.001"), id="nor with a size below 0"
        ),
        pytest.param(
            [listed("AAA-USD", "y", "OTHER")], [AX], ("0.001", "0.001"), id="a leaving venue's steps stay the pair's"
        ),
        pytest.param(
            [listed("AAA-USD", "y", "AY", "0.0001", trading=False)],
            [AX],
            ("0.0001", "0.001"),
            id="also those that it had last",
        ),
        pytest.param(
            [listed("AAA-USD", "w", "AW", "0.1", "0.1", "3")],
            [AX, AY, "w AW 0.1 0.1 3"],
            ("0.001", "0.001"),
            id="a venue that has none gets its product",
        ),
        pytest.param(
            [listed("AAA-USD", "w", "OLD", "0.0001", trading=False), listed("AAA-USD", "w", "AW"), B_STAYS],
            [AY, "w AW 0.01 0.001 1"],
            ("0.0001", "0.001"),
            id="one product a venue, the one that trades",
        ),
        pytest.param(
            [listed("AAA-USD", "z", "AZ"), listed("CCC-USD", "x", "CX"), listed("AAA-USD", "x", "AX"), B_STAYS],
            [AX, AY],
            ("0.001", "0.001"),
            id="an index stays what its venue has, and unknown pairs are not ours",
        ),
    ],
)
def test_what_a_list_changes(lists: Sequence[Listed], books: list[str], steps: tuple[str, str]) -> None:
    """The pair has these books and steps; the index of z is there whatever the lists say."""
    refreshed = BUNDLE.refreshed(lists)
    made = refreshed["AAA-USD"]
    assert shown(made) == books
    assert (made.tick, made.lot) == tuple(map(Decimal, steps))
    assert [each.id for each in made.products if each.price_only] == ["iz"]
    venues = {each.product.venue for each in lists}
    for each in made.books:
        assert each.evidence == ("listed" if each.venue in venues else "bundled")
        assert refreshed.of_product(each.venue, each.id) is made


def test_a_pair_without_a_book_disappears() -> None:
    """Although an index of it may be left; a later list brings it back."""
    assert [each.symbol for each in BUNDLE.refreshed([listed("AAA-USD", "x", "AX")])] == ["AAA-USD"]
    gone = BUNDLE.refreshed([listed("BBB-USD", "x", "BX"), listed("BBB-USD", "y", "BY")])
    assert [each.symbol for each in gone] == ["BBB-USD"]
    assert gone["BBB-USD"].venues == {"x", "y"}
    assert gone.of_product("z", "iz") is None
    with pytest.raises(UnknownSymbolError):
        gone.resolve("AAAUSD")


def test_the_bundle_itself_is_not_changed() -> None:
    """A refreshed registry is a new one."""
    before = list(BUNDLE)
    BUNDLE.refreshed([listed("AAA-USD", "x", "AX", "0.0001")])
    assert list(BUNDLE) == before


@pytest.mark.parametrize("venue", FILES)
def test_a_recorded_list_keeps_the_rows_that_came_from_it(venue: str, recordings: Path) -> None:
    """They trade by it and in the same steps; nothing of the other venues changes."""
    refreshed = INSTRUMENTS.refreshed(LISTS[venue][1](recorded_list(recordings, venue)))
    for symbol, name, product_id, *_, code in ROWS:
        if name != venue or code == RECORDED[venue]:
            before = next(each for each in INSTRUMENTS[symbol].products if (each.venue, each.id) == (name, product_id))
            assert before in refreshed[symbol].products


STEPS = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(1, 50), st.integers(min_value=0, max_value=8)
)


@given(st.lists(STEPS, min_size=1, max_size=5))
def test_a_common_step_fits_all(steps: list[Decimal]) -> None:
    """Each step is a whole number of it, and no coarser one has that."""
    common = common_step([Decimal(0), *steps, Decimal("NaN")])
    wholes = [step / common for step in steps]
    assert all(whole == whole.to_integral_value() for whole in wholes)
    assert all(any(whole % factor for whole in wholes) for factor in (2, 3, 5, 7))


@given(st.lists(st.tuples(st.sampled_from("xyw"), STEPS, STEPS, st.booleans()), max_size=6), st.integers(1, 10**6))
def test_what_was_accepted_stays_whole(rows: list[tuple[str, Decimal, Decimal, bool]], count: int) -> None:
    """Whatever lists say, prices and sizes of orders that the bundle takes are taken by what is left of it."""
    lists = [
        listed("AAA-USD", venue, f"A{venue.upper()}", str(tick), str(lot), trading=trading)
        for venue, tick, lot, trading in rows
    ]
    before = BUNDLE["AAA-USD"]
    for made in BUNDLE.refreshed(lists):
        if made.symbol == before.symbol:
            assert made.scale_price(before.tick * count) >= count
            assert made.scale_size(before.lot * count) >= count
