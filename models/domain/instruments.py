"""Instruments: what can be ordered, which venues list it, and in which steps.

One symbol (`LTC-BTC`) names one instrument; each venue that lists it has one product for it, with
the venue's own name, tick and lot. A product feeds one instrument only.

Evidence for ticks and lots is named beside the table.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property

from models.domain.errors import CrossfillError


class UnknownSymbolError(CrossfillError):
    """No instrument has this name; `near` lists the closest ones."""

    def __init__(self, symbol: str, near: list[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"unknown symbol {symbol!r}{hint}")
        self.symbol = symbol
        self.near = near


class StepError(CrossfillError):
    """A price or size that is no whole number of steps of its instrument, or is out of range."""

    def __init__(self, field: str, value: Decimal, step: Decimal, problem: str) -> None:
        super().__init__(f"{field} {value} {problem}")
        self.field = field
        self.value = value
        self.step = step


@dataclass(frozen=True)
class Product:
    """One book at one venue. `id` is the venue's own name for it, as its frames spell it."""

    venue: str
    id: str
    tick: Decimal
    lot: Decimal


# A scaled price or size stays below 2^63, so that it fits every column, struct and counter.
SCALED_MAX = 2**63 - 1


@dataclass(frozen=True)
class Instrument:
    """A pair that can be ordered, with the products that feed it (at most one a venue)."""

    base: str
    quote: str
    products: tuple[Product, ...]

    @property
    def symbol(self) -> str:
        """The canonical name, `BASE-QUOTE`."""
        return f"{self.base}-{self.quote}"

    @cached_property
    def venues(self) -> frozenset[str]:
        """The venues that list the instrument."""
        return frozenset(product.venue for product in self.products)

    @cached_property
    def tick(self) -> Decimal:
        """The finest price step of the instrument's venues."""
        return min(product.tick for product in self.products)

    @cached_property
    def lot(self) -> Decimal:
        """The finest size step of the instrument's venues."""
        return min(product.lot for product in self.products)

    def scale_price(self, price: Decimal) -> int:
        """Return `price` in ticks. Raises StepError where it is not a whole, positive number of them."""
        return _scale("price", price, self.tick)

    def scale_size(self, size: Decimal) -> int:
        """Return `size` in lots. Raises StepError where it is not a whole, positive number of them."""
        return _scale("order_size", size, self.lot)


def _scale(field: str, value: Decimal, step: Decimal) -> int:
    if not value.is_finite():
        raise StepError(field, value, step, "is not a number; give a positive decimal number")
    if value <= 0:
        raise StepError(field, value, step, "is not positive; give a number above 0")
    if value.adjusted() - step.adjusted() > 19:  # noqa: PLR2004 -- 2^63 has 19 digits
        raise StepError(field, value, step, f"is too large; at most {SCALED_MAX} steps of {step}")
    if value.normalize().as_tuple().exponent < step.normalize().as_tuple().exponent:  # type: ignore[operator] # finite
        raise StepError(field, value, step, f"is more precise than the step of {step}")
    numerator, denominator = value.as_integer_ratio()
    step_numerator, step_denominator = step.as_integer_ratio()
    scaled, rest = divmod(numerator * step_denominator, denominator * step_numerator)
    if rest:
        raise StepError(field, value, step, f"is not a multiple of the step {step}")
    if scaled > SCALED_MAX:
        raise StepError(field, value, step, f"is too large; at most {SCALED_MAX} steps of {step}")
    return scaled


class Instruments:
    """The registry: canonical symbols, the spellings that are accepted, and products by venue."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_symbol = {instrument.symbol: instrument for instrument in instruments}
        self._by_product = {
            (product.venue, product.id): instrument
            for instrument in self._by_symbol.values()
            for product in instrument.products
        }
        self._by_joined = {symbol.replace("-", ""): symbol for symbol in self._by_symbol}

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def __getitem__(self, symbol: str) -> Instrument:
        """Return the instrument of a canonical symbol; KeyError where there is none."""
        return self._by_symbol[symbol]

    def resolve(self, text: str) -> Instrument:
        """Return the instrument that `LTCBTC`, `ltc-btc`, `LTC_BTC` or `LTC/BTC` names.

        Raises UnknownSymbolError with near matches.
        """
        joined = text.strip().upper()
        for mark in "-_/":
            joined = joined.replace(mark, "")
        symbol = self._by_joined.get(joined)
        if symbol is None:
            near = get_close_matches(joined, self._by_joined, n=3, cutoff=0.6)
            raise UnknownSymbolError(text, [self._by_joined[name] for name in near])
        return self._by_symbol[symbol]

    def of_product(self, venue: str, product_id: str) -> Instrument | None:
        """Return the instrument that a venue's product feeds, or None."""
        return self._by_product.get((venue, product_id))

    def products_of(self, venue: str) -> Mapping[str, Instrument]:
        """Return the instruments that a venue lists, by the venue's product id."""
        return {pid: inst for (name, pid), inst in self._by_product.items() if name == venue}


def _instrument(base: str, quote: str, **products: tuple[str, str, str]) -> Instrument:
    return Instrument(
        base,
        quote,
        tuple(Product(venue, name, Decimal(tick), Decimal(lot)) for venue, (name, tick, lot) in products.items()),
    )


# Ticks and lots: Binance from its exchangeInfo of 2021-10-12, Coinbase from its products of
# 2021-04-17 (its USDT books from its public page, 2026-11). Binance's LTCUSDT tick was 0.1 in that
# list and has been made finer since; a finer step than the venue's is always safe.
INSTRUMENTS = Instruments(
    [
        _instrument("BTC", "USD", coinbase=("BTC-USD", "0.01", "0.00000001")),
        _instrument(
            "BTC",
            "USDT",
            binance=("BTCUSDT", "0.01", "0.00001"),
            coinbase=("BTC-USDT", "0.01", "0.00000001"),
        ),
        _instrument("ETH", "USD", coinbase=("ETH-USD", "0.01", "0.00000001")),
        _instrument(
            "ETH",
            "USDT",
            binance=("ETHUSDT", "0.01", "0.0001"),
            coinbase=("ETH-USDT", "0.01", "0.00000001"),
        ),
        _instrument(
            "ETH",
            "BTC",
            binance=("ETHBTC", "0.000001", "0.0001"),
            coinbase=("ETH-BTC", "0.00001", "0.00000001"),
        ),
        _instrument("LTC", "USD", coinbase=("LTC-USD", "0.01", "0.00000001")),
        _instrument("LTC", "USDT", binance=("LTCUSDT", "0.01", "0.001")),
        _instrument(
            "LTC",
            "BTC",
            binance=("LTCBTC", "0.000001", "0.001"),
            coinbase=("LTC-BTC", "0.000001", "0.00000001"),
        ),
    ],
)
