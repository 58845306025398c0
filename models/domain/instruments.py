"""Instruments: what can be ordered, which venues list it, and in which steps.

One symbol (`LTC-BTC`) names one instrument; each venue that lists it has one product for it, with
the venue's own name, tick and lot. A product feeds one instrument only.

The bundled table, with the evidence for each row, is models.domain.listings. A live market refreshes it
by the venues' own lists.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property
from itertools import product as every_pair
from math import gcd

from models.domain.errors import CrossfillError
from models.domain.listings import EVIDENCE, LISTINGS


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
    """One book at one venue. `id` is the venue's own name for it, as its frames spell it.

    `min_size` is the smallest order that the venue itself takes. A `price_only` product is an index:
    it joins averages, has no book and no steps, and nothing can be filled there. `evidence` says where
    these come from.
    """

    venue: str
    id: str
    tick: Decimal
    lot: Decimal
    min_size: Decimal = Decimal(0)
    price_only: bool = False
    evidence: str = field(default="", compare=False)


@dataclass(frozen=True)
class Listed:
    """What a venue's own list says of one spot book: `base` and `quote` in the common names (BTC, not XBT)."""

    base: str
    quote: str
    product: Product
    trading: bool

    @property
    def symbol(self) -> str:
        """The canonical name of its pair."""
        return f"{self.base}-{self.quote}"

    @property
    def usable(self) -> bool:
        """Whether it trades, in steps and a least size that make sense."""
        product = self.product
        least = product.min_size.is_finite() and 0 <= product.min_size <= STEP_MAX
        return self.trading and least and _is_step(product.tick) and _is_step(product.lot)


# No venue's step is finer or coarser. In finer ones the prices and sizes of accepted orders would not fit
# their 63 bits any more; quotes in finer ones are rounded.
STEP_DIGITS_MAX = 12
STEP_MAX = Decimal(10) ** 12


def _is_step(step: Decimal) -> bool:
    return step.is_finite() and 0 < step <= STEP_MAX and -_exponent(step) <= STEP_DIGITS_MAX


def _exponent(step: Decimal) -> int:
    return int(step.normalize().as_tuple().exponent)


def common_step(steps: Iterable[Decimal]) -> Decimal:
    """Return the coarsest step of which every one of these is a whole number: mostly the finest of them.

    What is no step (0, or beyond all sense) counts for nothing; 0 where that leaves none.
    """
    real = {step for step in steps if _is_step(step)}
    if len(real) <= 1:
        return next(iter(real), Decimal(0))
    exponent = min(map(_exponent, real))
    return Decimal(gcd(*(int(step.scaleb(-exponent)) for step in real))).scaleb(exponent)


# A scaled price or size stays below 2^63, so that it fits every column, struct and counter.
SCALED_MAX = 2**63 - 1


@dataclass(frozen=True)
class Instrument:
    """A pair that can be ordered, with the products that feed it (at most one a venue).

    `former` products feed it no more; orders were accepted in their steps, so the pair keeps these.
    """

    base: str
    quote: str
    products: tuple[Product, ...]
    former: tuple[Product, ...] = ()

    @property
    def symbol(self) -> str:
        """The canonical name, `BASE-QUOTE`."""
        return f"{self.base}-{self.quote}"

    @cached_property
    def books(self) -> tuple[Product, ...]:
        """The products that orders can be filled at."""
        return tuple(product for product in self.products if not product.price_only)

    @cached_property
    def venues(self) -> frozenset[str]:
        """The venues that list the instrument: an order may be filled there."""
        return frozenset(product.venue for product in self.books)

    @cached_property
    def tick(self) -> Decimal:
        """The finest price step of the instrument's venues: each of theirs is a whole number of it."""
        return common_step(product.tick for product in (*self.books, *self.former))

    @cached_property
    def lot(self) -> Decimal:
        """The finest size step of the instrument's venues: each of theirs is a whole number of it."""
        return common_step(product.lot for product in (*self.books, *self.former))

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


# What some venues call an asset.
ALIASES = {"BTC": "XBT", "DOGE": "XDG"}


def _joined(text: str) -> str:
    return text.replace("-", "").replace("_", "").replace("/", "")


class Instruments:
    """The registry: canonical symbols, the spellings that are accepted, and products by venue."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._by_symbol = {instrument.symbol: instrument for instrument in instruments}
        self._by_product = {
            (product.venue, product.id): instrument
            for instrument in self._by_symbol.values()
            for product in instrument.products
        }
        self._by_joined = {_joined(symbol): symbol for symbol in self._by_symbol}
        for symbol, instrument in self._by_symbol.items():
            bases, quotes = ((asset, ALIASES.get(asset, asset)) for asset in (instrument.base, instrument.quote))
            for base, quote in every_pair(bases, quotes):
                self._by_joined.setdefault(_joined(base + quote), symbol)

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._by_symbol.values())

    def __getitem__(self, symbol: str) -> Instrument:
        """Return the instrument of a canonical symbol; KeyError where there is none."""
        return self._by_symbol[symbol]

    def resolve(self, text: str) -> Instrument:
        """Return the instrument that `LTCBTC`, `ltc-btc`, `LTC_BTC`, `LTC/XBT` or the like names.

        Raises UnknownSymbolError with near matches.
        """
        joined = _joined(text.strip().upper())
        symbol = self._by_joined.get(joined)
        if symbol is None:
            near = get_close_matches(joined, self._by_joined, n=3, cutoff=0.6)
            raise UnknownSymbolError(text, list(dict.fromkeys(self._by_joined[name] for name in near)))
        return self._by_symbol[symbol]

    def of_product(self, venue: str, product_id: str) -> Instrument | None:
        """Return the instrument that a venue's product feeds, or None."""
        return self._by_product.get((venue, product_id))

    @cached_property
    def venues(self) -> tuple[str, ...]:
        """Every venue that has a product, sorted."""
        return tuple(sorted({venue for venue, _ in self._by_product}))

    def products_of(self, venue: str) -> Mapping[str, Instrument]:
        """Return the instruments that a venue lists, by the venue's product id."""
        return {pid: inst for (name, pid), inst in self._by_product.items() if name == venue}

    def refreshed(self, listed: Iterable[Listed]) -> "Instruments":
        """Return these pairs with the products that the venues' own lists have for them.

        A venue that has a list keeps the products that trade by it, and gets one for each pair that it
        had none for. Steps only ever become finer, whatever leaves: an accepted order stays a whole number
        of them. Least sizes are the list's. Venues without a list and what is price-only stay as they are;
        a pair that no book is left for disappears.
        """
        lists: dict[str, list[Listed]] = {}
        for each in listed:
            lists.setdefault(each.product.venue, []).append(each)
        made = (_refreshed(instrument, lists) for instrument in self)
        return Instruments(instrument for instrument in made if instrument.books)


def _refreshed(instrument: Instrument, lists: Mapping[str, list[Listed]]) -> Instrument:
    products, former = [], list(instrument.former)
    for product in instrument.products:
        if product.price_only or product.venue not in lists:
            products.append(product)
            continue
        mine = [each for each in lists[product.venue] if each.product.id == product.id]
        found = next((each.product for each in mine if each.usable), None)
        if found is None:
            former += [product, *(each.product for each in mine)]
            continue
        tick, lot = common_step([product.tick, found.tick]), common_step([product.lot, found.lot])
        products.append(replace(found, tick=tick, lot=lot))
    for venue in sorted(lists.keys() - {product.venue for product in instrument.products}):
        mine = [each for each in lists[venue] if each.symbol == instrument.symbol]
        found = next((each.product for each in mine if each.usable), None)
        products += [] if found is None else [found]
        former += [each.product for each in mine if each.product is not found]
    return replace(instrument, products=tuple(products), former=tuple(former))


def _listed(table: str) -> Iterator[Instrument]:
    """Yield the instruments of a table of listings, see models.domain.listings."""
    by_symbol: dict[str, list[Product]] = {}
    for line in table.strip().splitlines():
        symbol, venue, product_id, tick, lot, min_size, code = line.split()
        price_only = tick == "-"
        finest, smallest, least = (Decimal("0" if price_only else number) for number in (tick, lot, min_size))
        product = Product(venue, product_id, finest, smallest, least, price_only, EVIDENCE[code])
        by_symbol.setdefault(symbol, []).append(product)
    for symbol, products in by_symbol.items():
        base, _, quote = symbol.partition("-")
        yield Instrument(base, quote, tuple(products))


INSTRUMENTS = Instruments(_listed(LISTINGS))
