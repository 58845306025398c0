"""What one connection saw of each product, gathered into chunks for the history on the bus."""

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal

from models.bus.history import KEYFRAME_S
from models.bus.latest import LatestPrice
from models.domain.history import Chunk, Print, Sample, Span
from models.domain.quotes import Quote, Trade

# Prices that stood for less are passed over: the newest one counts from its own time on.
SLOT_US = 50_000
PRINTS_MAX = 5_000  # of a product in one chunk; beyond it trades are missed, and the span says so
NO_QUOTE = Quote("", "", 0, 0, None, None, None, None, live=False, exchange_time_us=None, received_time_us=0)

Prices = tuple[Decimal | None, Decimal | None, Decimal | None]  # bid, ask, last


class _Product:
    __slots__ = ("at_us", "prices", "prints", "quote", "samples", "told_us")

    def __init__(self) -> None:
        self.prices: Prices = (None, None, None)
        self.samples: list[Sample] = []
        self.prints: list[Print] = []
        self.told_us = 0
        self.at_us = 0  # of the latest sample
        self.quote = NO_QUOTE  # the newest, for its sizes

    def tell(self, time_us: int, prices: Prices) -> None:
        if prices == self.prices:
            return
        self.prices = prices
        # A price that is told at a flush may be later than a frame that was read before it and decoded after it.
        time_us = self.at_us = max(time_us, self.at_us)
        samples = self.samples
        if len(samples) > 1 and time_us - samples[-2].time_us < SLOT_US:
            samples.pop()
        quote = self.quote
        samples.append(Sample(time_us, *prices, quote.bid_size, quote.ask_size))


class History:
    """The history of one connection, from connecting to its end."""

    def __init__(self, venue: str, token: int, connected_us: int, market: str) -> None:
        self._venue = venue
        self._market = market
        self._token = token
        self._until_us = connected_us
        self._products: dict[str, _Product] = {}
        self._missed: set[str] = set()

    def take(self, items: Iterable[Quote | Trade], latest: Mapping[str, LatestPrice], now_us: int) -> None:
        """Take in what has come: quotes and trades in their order, and last prices told without a trade."""
        for item in items:
            product = self._product(item.product_id)
            bid, ask, last = product.prices
            if isinstance(item, Quote):
                product.quote = item
                product.tell(item.received_time_us, (item.bid_price, item.ask_price, last))
                continue
            product.tell(item.received_time_us, (bid, ask, item.price))
            if item.before:
                continue
            if len(product.prints) < PRINTS_MAX:
                told = item.taker_side, item.exchange_time_us
                product.prints.append(Print(item.received_time_us, item.trade_id, item.price, item.size, *told))
            else:
                self._missed.add(item.product_id)
        for product_id, price in latest.items():
            product = self._product(product_id)
            bid, ask, last = product.prices
            if price.last is not None and price.last != last:
                product.tell(now_us, (bid, ask, price.last))

    def flush(self, now_us: int, until_us: int, missed: Collection[str]) -> tuple[dict[str, Chunk], Span]:
        """Return chunks by product, and the time that they are of: up to when the connection was last heard."""
        chunks = {}
        for product_id, product in self._products.items():
            known = product.prices != (None, None, None)
            if known and not product.samples and now_us - product.told_us > KEYFRAME_S * 1e6:
                product.at_us = max(until_us, product.at_us)
                quote = product.quote
                product.samples.append(Sample(product.at_us, *product.prices, quote.bid_size, quote.ask_size))
            if product.samples or product.prints:
                samples, prints = tuple(product.samples), tuple(product.prints)
                chunks[product_id] = Chunk(self._venue, product_id, self._token, samples, prints, self._market)
                product.told_us = now_us
                product.samples, product.prints = [], []
        gaps = tuple(sorted({*missed, *self._missed}))
        self._missed.clear()
        until_us = max(until_us, self._until_us)
        span = Span(self._venue, self._token, self._until_us, until_us, gaps, self._market)
        self._until_us = span.until_us
        return chunks, span

    def _product(self, product_id: str) -> _Product:
        product = self._products.get(product_id)
        if product is None:
            product = self._products[product_id] = _Product()
        return product
