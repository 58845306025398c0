"""The journal of a loop: the book that it began with, what each step was given, and when; no outcomes.

One JSON object a step, numbers with decimals as text. From it the book's work can be done again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from models.domain.decimals import plain
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.ledger import RULE_VERSION
from models.domain.orders import Order, OrderState, Side, TimeInForce
from models.domain.outcomes import Level, VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def entry(
    now_us: int,
    items: Sequence[BusItem],
    switches: Sequence[VenueSwitch],
    cancels: Sequence[int],
    orders: Sequence[Order],
) -> dict[str, Any]:
    """Return one step's inputs in a form that JSON can hold."""
    return {
        "now": now_us,
        "switches": [[switch.venue, switch.enabled] for switch in switches],
        "cancels": list(cancels),
        "items": [_item(item) for item in items if isinstance(item, Quote | Mark)],
        "orders": [_order(order) for order in orders],
    }


def _item(item: Quote | Mark) -> list[Any]:
    if isinstance(item, Mark):
        return ["mark", item.venue, item.token, item.marked_time_us]
    prices = [_text(value) for value in (item.bid_price, item.bid_size, item.ask_price, item.ask_size)]
    head = ["quote", item.venue, item.product_id, item.token, item.number]
    return [*head, *prices, item.live, item.exchange_time_us, item.received_time_us]


def _order(order: Order) -> list[Any]:
    return [
        order.seq,
        order.id,
        order.symbol,
        order.side.value,
        plain(order.price),
        plain(order.size),
        order.time_in_force.value,
        sorted(order.venues) if order.venues else None,
        order.deadline_us,
        order.state.value,
        plain(order.filled_size),
    ]


@dataclass(frozen=True, slots=True)
class Opening:
    """The book that a loop began with, and the version of the rule that filled its orders."""

    instruments: Instruments
    levels: list[Level]
    disabled: list[str]
    tokens: dict[str, int]
    silence_us: int
    rule_version: int


def opening(
    now_us: int,
    instruments: Iterable[Instrument],
    levels: Iterable[Level],
    disabled: Sequence[str],
    silence_us: int,
    tokens: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the first entry of a journal: a step without inputs, and the book that it was done on."""
    book = {
        "rule_version": RULE_VERSION,
        "silence_us": silence_us,
        "disabled": sorted(disabled),
        "tokens": dict(tokens or {}),
        "levels": [
            [level.venue, level.product_id, level.side.value, plain(level.price), plain(level.taken)]
            for level in levels
        ],
        "instruments": [
            [each.base, each.quote, *([_product(product) for product in some] for some in (each.books, each.former))]
            for each in instruments
        ],
    }
    return {**entry(now_us, (), (), (), ()), "book": book}


def _product(product: Product) -> list[str]:
    return [product.venue, product.id, plain(product.tick), plain(product.lot)]


def read_opening(entry: Mapping[str, Any]) -> Opening | None:
    """Return the book that an entry opens; None for an entry that goes on with one."""
    book = entry.get("book")
    if book is None:
        return None
    instruments = Instruments(
        Instrument(base, quote, *(tuple(map(_read_product, some)) for some in products))
        for base, quote, *products in book["instruments"]
    )
    levels = [
        Level(venue, product_id, Side(side), Decimal(price), Decimal(taken))
        for venue, product_id, side, price, taken in book["levels"]
    ]
    # A journal from before tokens were loaded has none.
    told = (book["disabled"], book.get("tokens", {}), book["silence_us"], book["rule_version"])
    return Opening(instruments, levels, *told)


def _read_product(product: Sequence[str]) -> Product:
    venue, product_id, tick, lot = product
    return Product(venue, product_id, Decimal(tick), Decimal(lot))


def read(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the `Book.step` that an entry was written for."""
    return {
        "now_us": entry["now"],
        "switches": [VenueSwitch(venue, enabled) for venue, enabled in entry["switches"]],
        "cancels": entry["cancels"],
        "items": [_read_item(item) for item in entry["items"]],
        "orders": [_read_order(order) for order in entry["orders"]],
    }


def _read_item(item: list[Any]) -> BusItem:
    if item[0] == "mark":
        return Mark(*item[1:])
    return Quote(*item[1:5], *map(_number, item[5:9]), *item[9:])


def _read_order(order: list[Any]) -> Order:
    seq, order_id, symbol, side, price, size, time_in_force, venues, deadline_us, state, filled_size = order
    return Order(
        seq=seq,
        id=order_id,
        job_id="",
        owner_id="",
        symbol=symbol,
        side=Side(side),
        price=Decimal(price),
        size=Decimal(size),
        time_in_force=TimeInForce(time_in_force),
        venues=frozenset(venues) if venues else None,
        deadline_us=deadline_us,
        state=OrderState(state),
        filled_size=Decimal(filled_size),
    )
