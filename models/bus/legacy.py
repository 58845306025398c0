"""A ticker as another service had it, for those who come from it; see docs/coming-from.md."""

from decimal import Decimal


def ticker_form(
    exchange: str,
    ticker: str,
    bid: tuple[Decimal | None, Decimal | None],
    last: Decimal | None,
    ask: tuple[Decimal | None, Decimal | None],
) -> dict[str, str | None]:
    """Return the seven keys, with every digit that the exchange sent; a side is its price and its size."""
    return {
        "exchange": exchange,
        "ticker": ticker,
        "best_bid_quantity": _as_sent(bid[1]),
        "best_bid_price": _as_sent(bid[0]),
        "last_price": _as_sent(last),
        "best_offer_quantity": _as_sent(ask[1]),
        "best_offer_price": _as_sent(ask[0]),
    }


def _as_sent(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")
