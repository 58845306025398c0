"""What trades come to, and that a restart changes nothing of it."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise, zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.analysis import GAPS_MAX, PARTS, Analysis, Gaps, Kept, Rules, Told, part_of, series_in, series_name
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.quotes import EVERY_PRODUCT, BusItem, Mark, Quote, Trade
from models.domain.vwap import Vwap

MINUTE_US = 60_000_000
BEGIN_US = 1_795_276_800_000_000  # a full hour
STEP = Decimal("0.01")
INSTRUMENTS = Instruments(
    [
        Instrument(
            "LTC",
            "BTC",
            (Product("binance", "LTCBTC", STEP, STEP), Product("kraken", "LTC/BTC", STEP, STEP)),
        ),
        Instrument("ETH", "BTC", (Product("binance", "ETHBTC", STEP, STEP),)),
    ]
)
RULES = Rules("simulated", 3)


def trade(
    number: int | str,
    at_s: float,
    price: str = "1",
    size: str = "1",
    *,
    token: int = 1,
    product: str = "LTCBTC",
    late_s: float = 0.1,
) -> Trade:
    venue = "kraken" if "/" in product else "binance"
    time_us = BEGIN_US + int(at_s * 1e6)
    received_us = time_us + int(late_s * 1e6)
    return Trade(venue, product, token, str(number), Decimal(price), Decimal(size), "buy", time_us, received_us)


def mark(at_s: float, *, token: int = 1, missed: tuple[str, ...] = (), venue: str = "binance") -> Mark:
    return Mark(venue, token, BEGIN_US + int(at_s * 1e6), missed)


def vwaps(told: Told) -> list[tuple[str, Decimal | None, int]]:
    return [(news.venue, news.value, news.points) for _, news in told.news if isinstance(news, Vwap)]


def minutes(told: Told, venue: str = "binance") -> list[Candle]:
    return [candle for candle in told.closed if candle.interval_s == 60 and candle.venue == venue]


def test_each_trade_changes_its_venues_average_and_that_of_all() -> None:
    """In the order of the trades, each told after its trade; a pair at another venue is the same pair."""
    analysis = Analysis(RULES, INSTRUMENTS)
    told = analysis.apply([trade(1, 0, "10"), trade(7, 1, "20", "3", product="LTC/BTC"), trade(2, 2, "30")])
    assert vwaps(told) == [
        ("binance", Decimal(10), 1),
        (EVERY_VENUE, Decimal(10), 1),
        ("kraken", Decimal(20), 1),
        (EVERY_VENUE, Decimal("17.5"), 2),
        ("binance", Decimal(20), 2),
        (EVERY_VENUE, Decimal(20), 3),
    ]
    assert {symbol for symbol, _ in told.news} == {"LTC-BTC"}


def test_a_trade_that_comes_again_or_from_before_counts_for_nothing() -> None:
    """A duplicate is counted; what was traded before the subscription is not even that; an unknown product neither."""
    analysis = Analysis(RULES, INSTRUMENTS)
    before = Trade("binance", "LTCBTC", 1, "1", Decimal(5), Decimal(5), "buy", BEGIN_US, BEGIN_US, before=True)
    told = analysis.apply([before, trade(2, 0), trade(2, 0), trade(9, 0, product="XRPBTC")])
    assert [news.trade_id for _, news in told.news if isinstance(news, Trade)] == ["2"]
    assert (analysis.duplicates, analysis.late) == (1, 0)


def test_what_comes_out_of_order_is_counted() -> None:
    """It takes its place by its number; what is older than a full window is late, and in candles alone, once."""
    analysis = Analysis(RULES, INSTRUMENTS)
    told = analysis.apply([trade(number, 0) for number in (10, 12, 14, 13, 13, 11, 11, 10, 15)])
    assert (analysis.out_of_order, analysis.duplicates, analysis.late) == (1, 1, 3)
    assert [news.trade_id for _, news in told.news if isinstance(news, Trade)] == ["10", "12", "14", "13", "11", "15"]


def test_a_trade_of_hundreds_of_digits_stops_nothing() -> None:
    """It is refused and counted; what comes after it is taken."""
    analysis = Analysis(RULES, INSTRUMENTS)
    told = analysis.apply([trade(1, 0), trade(2, 0, "1." + "1" * 300), trade(3, 0)])
    assert [news.trade_id for _, news in told.news if isinstance(news, Trade)] == ["1", "3"]
    assert analysis.refused == 1


def test_a_candle_closes_by_the_trades_clock_and_in_a_quiet_market_by_marks() -> None:
    """The first one began in its midst; the second is whole, though nothing was traded at its end."""
    analysis = Analysis(RULES, INSTRUMENTS)
    marks = [mark(second) for second in range(31, 60)]
    assert not minutes(analysis.apply([trade(1, 30), *marks]))
    told = analysis.apply([mark(60), trade(2, 61), trade(3, 62.5)])
    [first] = minutes(told)
    assert (first.open_time_us, first.trades, first.incomplete) == (BEGIN_US, 1, True)
    told = analysis.apply([mark(second) for second in range(63, 126)])
    [second] = minutes(told)
    assert (second.open_time_us, second.trades, second.incomplete) == (BEGIN_US + MINUTE_US, 2, False)
    assert [candle.open_time_us for candle in minutes(told, EVERY_VENUE)] == [BEGIN_US + MINUTE_US]


def test_a_candle_in_which_trades_may_be_missing_says_so() -> None:
    """A mark names the product, or all of them; the venue is silent; there is a new connection. Not otherwise."""

    def incomplete(*items: BusItem) -> bool:
        analysis = Analysis(RULES, INSTRUMENTS)
        analysis.apply([trade(1, 59), *(mark(second) for second in range(59, 65))])
        told = analysis.apply([*items, *(mark(second, token=items[-1].token) for second in range(75, 130))])
        [candle] = [candle for candle in minutes(told) if candle.open_time_us == BEGIN_US + MINUTE_US]
        [merged] = [candle for candle in minutes(told, EVERY_VENUE) if candle.open_time_us == BEGIN_US + MINUTE_US]
        assert candle.incomplete == merged.incomplete
        return candle.incomplete

    steady = [mark(second) for second in range(65, 75)]
    assert not incomplete(*steady)
    assert incomplete(mark(64.5, missed=("LTCBTC",)), *steady)
    assert incomplete(mark(64.5, missed=(EVERY_PRODUCT,)), *steady)
    assert not incomplete(mark(64.5, missed=("ETHBTC",)), *steady)
    assert incomplete(mark(64.5), mark(72))
    assert incomplete(*steady, mark(75, token=2))


def test_batches_that_were_lost_make_what_was_open_incomplete() -> None:
    """From when the venue was last heard."""
    analysis = Analysis(RULES, INSTRUMENTS)
    analysis.apply([trade(1, 59), *(mark(second) for second in range(59, 70))])
    analysis.lost()
    told = analysis.apply([mark(second) for second in range(70, 190)])
    assert [candle.incomplete for candle in minutes(told)] == [True, False]


numbers = st.integers(1, 40)
items = st.lists(
    st.one_of(
        st.builds(
            lambda number, price, product, late: (number, price, product, late),
            numbers,
            st.sampled_from(["1", "2.5", "0.003"]),
            st.sampled_from(["LTCBTC", "LTC/BTC", "ETHBTC"]),
            st.sampled_from([0.0, 0.0, 0.0, 7.0]),
        ),
        st.sampled_from(["mark", "missed", "token", "quote"]),
    ),
    max_size=60,
)


def said(script: Sequence[tuple[int, str, str, float] | str]) -> list[BusItem]:
    """Return items that follow a script, some seconds after each other."""
    made: list[BusItem] = []
    token = 1
    for place, what in enumerate(script):
        at_s = place * 3.0
        if isinstance(what, tuple):
            number, price, product, late_s = what
            made.append(trade(number, at_s - late_s, price, token=token, product=product, late_s=late_s))
        elif what == "quote":
            one = Decimal(1)
            made.append(Quote("binance", "LTCBTC", token, place, one, one, one, one, True, None, BEGIN_US))
        else:
            token += what == "token"
            made.append(mark(at_s, token=token, missed=("LTCBTC",) if what == "missed" else ()))
    return made


def restarted(everything: Kept) -> Analysis:
    windows = {name: everything.replaced.get(name, []) for name in series_in(everything.states)}
    return Analysis(RULES, INSTRUMENTS, everything.states, windows)


def merge(kept: Kept, newer: Kept) -> None:
    """Do what the bus does with what is kept."""
    kept.states |= newer.states
    kept.replaced |= newer.replaced
    for name, trades in newer.appended.items():
        kept.replaced[name] = [*kept.replaced.get(name, []), *trades][-RULES.window :]


@settings(max_examples=80, deadline=None)
@given(items, st.sets(st.integers(0, 59)))
def test_a_restart_changes_nothing(script: list[tuple[int, str, str, float] | str], restarts: set[int]) -> None:
    """At any point: what is told by one that was begun again from what was kept is what one tells that went on."""
    going_on, begun_again, kept = Analysis(RULES, INSTRUMENTS), Analysis(RULES, INSTRUMENTS), Kept()
    for place, item in enumerate(said(script)):
        if place in restarts:
            merge(kept, begun_again.kept())
            begun_again = restarted(kept)
        expected, told = going_on.apply([item]), begun_again.apply([item])
        assert told.news == expected.news
        assert told.closed == expected.closed


@settings(max_examples=150, deadline=None)
@given(items, st.dictionaries(st.integers(0, 59), st.sampled_from([{0}, {1}, {0, 1}])), st.integers(0, 60))
def test_a_restart_from_parts_that_were_kept_at_different_times_changes_nothing(
    script: list[tuple[int, str, str, float] | str], keepings: dict[int, set[int]], restart: int
) -> None:
    """It is given everything since the oldest was kept again, and tells of each part what came after that was."""
    of_symbol = {symbol: part_of(symbol) for symbol in ("LTC-BTC", "ETH-BTC")}
    one, other = of_symbol.values()
    assert one != other
    made = said(script)
    analysis, kept, kept_at, expected = Analysis(RULES, INSTRUMENTS), Kept(), dict.fromkeys(range(PARTS), 0), []
    merge(kept, analysis.kept())
    for place, item in enumerate(made[:restart]):
        expected.append(analysis.apply([item]))
        which = keepings.get(place, set())
        parts = [part for part in range(PARTS) if (1 if part == one else 0) in which]
        if parts:
            merge(kept, analysis.kept(parts))
            kept_at |= dict.fromkeys(parts, place + 1)
    begun_again = restarted(kept)
    expected += [analysis.apply([item]) for item in made[restart:]]
    for place in range(min(kept_at.values()), len(made)):
        having = {part for part, at in kept_at.items() if at > place}
        told, right = begun_again.apply([made[place]], having), expected[place]
        assert told.closed == [each for each in right.closed if of_symbol[each.symbol] not in having]
        assert [each for each in told.news if not isinstance(each[1], Quote)] == [
            each for each in right.news if of_symbol[each[0]] not in having and not isinstance(each[1], Quote)
        ]


@settings(max_examples=50, deadline=None)
@given(items, st.lists(st.integers(1, 9), max_size=20))
def test_how_items_are_batched_changes_no_candle_for_good(
    script: list[tuple[int, str, str, float] | str], sizes: list[int]
) -> None:
    """Batches differ in when a revision is told; the newest one of each candle is the same."""
    # What is from before a series' first trade may be too late for it, which how items come decides.
    begun: list[BusItem] = [trade(0, -100, product=product) for product in ("LTCBTC", "LTC/BTC", "ETHBTC")]
    made = [*begun, *said(script)]
    ends = range(len(script) * 3, len(script) * 3 + 7200, 60)
    end: list[BusItem] = [mark(at, token=99, venue=venue) for at in ends for venue in ("binance", "kraken")]
    cuts = [0]
    for size in sizes:
        cuts.append(cuts[-1] + size)
    newest = []
    for batches in ([[item] for item in made], [made[a:b] for a, b in pairwise([*cuts, len(made) + cuts[-1]])]):
        analysis = Analysis(RULES, INSTRUMENTS)
        closed = [candle for batch in [*batches, end] for candle in analysis.apply(batch).closed]
        kept = {(series_name(each.venue, each.symbol), each.interval_s, each.open_time_us): each for each in closed}
        newest.append({key: (each.open, each.close, each.volume, each.trades) for key, each in kept.items()})
    assert newest[0] == newest[1]


@settings(max_examples=100, deadline=None)
@given(
    st.permutations(range(2, 32)),
    st.lists(st.integers(1, 31), max_size=30),
    st.integers(1, 3),
    st.sets(st.integers(0, 60)),
)
def test_candles_have_each_trade_once_however_late(
    order: list[int], again: list[int], step: int, restarts: set[int]
) -> None:
    """Those of a plain model, which remembers every id: what comes after a full window too, and nothing twice."""
    arriving = [1, *(number for pair in zip_longest(order, again) for number in pair if number is not None)]
    end: list[BusItem] = [mark(second) for second in range(10, 130)]
    analysis, kept, closed, traded = Analysis(RULES, INSTRUMENTS), Kept(), list[Candle](), list[int]()
    for place, item in enumerate([*(trade(step * n, n / 5, size=str(n)) for n in arriving), *end]):
        if place in restarts:
            merge(kept, analysis.kept())
            analysis = restarted(kept)
        told = analysis.apply([item])
        closed += told.closed
        traded += [int(news.trade_id) // step for _, news in told.news if isinstance(news, Trade)]
    assert traded == list(dict.fromkeys(arriving))
    for venue in ("binance", EVERY_VENUE):
        newest = {(each.interval_s, each.open_time_us): each for each in closed if each.venue == venue and each.trades}
        for interval_s in (1, 60):
            model: dict[int, list[int]] = {}
            for number in set(arriving):
                model.setdefault(BEGIN_US + number // (5 * interval_s) * interval_s * 1_000_000, []).append(number)
            found = {at_us: each for (length_s, at_us), each in newest.items() if length_s == interval_s}
            assert {at_us: (each.trades, each.volume) for at_us, each in found.items()} == {
                at_us: (len(numbers), Decimal(sum(numbers))) for at_us, numbers in model.items()
            }


def test_what_is_remembered_of_ids_is_little() -> None:
    """Nothing where they follow each other; a hundred gaps of ids that do not, the newest ones."""
    gaps = Gaps(10)
    for number in range(12, 1_000, 2):
        gaps.advance(number)
    assert len(gaps.ranges) == GAPS_MAX
    assert gaps.ranges[-1] == (997, 997)
    assert (gaps.fill(11), gaps.fill(997), gaps.fill(997), gaps.fill(996)) == (False, True, False, False)
    gaps.advance(5)
    assert gaps.ranges == []
    analysis = Analysis(RULES, INSTRUMENTS)
    analysis.apply([trade(number, number) for number in range(1_000)])
    assert analysis.kept().states["gaps/binance/LTC-BTC"] == analysis.kept(everything=True).states["gaps/all/LTC-BTC"]
