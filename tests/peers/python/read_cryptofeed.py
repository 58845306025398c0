"""Read a venue with cryptofeed and print what it says, one JSON object a line.

Arguments: venue, address, seconds, then the products as BASE-QUOTE=ID. Numbers are printed as text, from Decimals.
Serves cryptofeed 1.9 (which calls back with keywords and keeps addresses in its objects) and 3.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cryptofeed import exchanges
from cryptofeed.defines import L1_BOOK, TICKER, TRADES
from cryptofeed.symbols import Symbols

LOOPBACK = ("127.0.0.1", "::1")
NEW = hasattr(exchanges, "HTX")
CLASSES = {"binance": "Binance", "kraken": "Kraken", "deribit": "Deribit"}
CLASSES |= {"htx": "HTX", "okx": "OKX"} if NEW else {"htx": "Huobi", "okx": "OKEx"}
PATHS = {"binance": "", "kraken": "/v2", "htx": "/ws", "okx": "/ws/v5/public", "deribit": "/ws/api/v2"}
NAMES = {"bid": "bid", "ask": "ask", "bid_price": "bid", "ask_price": "ask"}
NAMES |= {"bid_size": "bid_size", "ask_size": "ask_size", "bid_amount": "bid_size", "ask_amount": "ask_size"}
NAMES |= {"price": "price", "amount": "size"}
WORDS = {"side": "side", "id": "id", "order_id": "id"}


def keep_to_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse, as an audit hook, every connection that leaves this machine."""
    if event == "socket.connect" and arguments[1][0] not in LOOPBACK:
        raise PermissionError(f"not on loopback: {arguments[1]}")


def exact(value: object) -> str:
    """Return a number as text. Raises TypeError where it is not a Decimal."""
    if not isinstance(value, Decimal):
        raise TypeError(f"{value!r} is no Decimal")
    return str(value)


def channels(kind: Any, venue: str) -> list[str]:
    """Return what this client asks for: of Deribit, sizes too, and trades where that needs no account."""
    if venue == "deribit":
        return [L1_BOOK, TRADES] if NEW else [L1_BOOK]
    return [channel for channel in (TICKER, TRADES) if channel in kind.websocket_channels]


def subscribed(venue: str, address: str, channel: str, product_ids: Mapping[str, str]) -> Any:
    """Return a feed of one channel: the old client opens a connection for each, and asks each for all of them."""

    async def take(said: object = None, _received: float = 0, **told: Any) -> None:
        if said is not None:
            told = {name: getattr(said, name) for name in ("symbol", *NAMES, *WORDS) if hasattr(said, name)}
        numbers = {NAMES[name]: exact(value) for name, value in told.items() if name in NAMES}
        words = {WORDS[name]: str(value) for name, value in told.items() if name in WORDS}
        kind = "trade" if channel == TRADES else "quote"
        line = {"kind": kind, "product": product_ids[told["symbol"]], **words, **numbers}
        print(json.dumps(line), flush=True)  # noqa: T201 -- its answer

    feed = getattr(exchanges, CLASSES[venue])(
        symbols=list(product_ids), channels=[channel], callbacks={channel: take}, retries=0
    )
    if NEW:
        from cryptofeed.connection import WebsocketEndpoint  # noqa: PLC0415 -- the old one has none

        feed.websocket_endpoints = [WebsocketEndpoint(address + PATHS[venue])]
    elif venue == "binance":
        feed.ws_endpoint = address
        feed.address = feed._address()
    else:
        feed.addresses = {"public": address + PATHS[venue]}  # OKX's
        feed.address = address + PATHS[venue]
    return feed


async def read(venue: str, address: str, seconds: float, product_ids: Mapping[str, str]) -> None:
    kind = getattr(exchanges, CLASSES[venue])
    # No list is fetched: this is what the client would have made of it.
    Symbols.set(kind.id, dict(product_ids), {"instrument_type": dict.fromkeys(product_ids, "spot")})
    feeds = [subscribed(venue, address, channel, product_ids) for channel in channels(kind, venue)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            if NEW:
                await asyncio.gather(*(feed.run(asyncio.Event()) for feed in feeds))
            for feed in feeds:
                feed.start(asyncio.get_running_loop())
            await asyncio.Event().wait()


if __name__ == "__main__":
    sys.addaudithook(keep_to_loopback)
    asyncio.run(read(sys.argv[1], sys.argv[2], float(sys.argv[3]), dict(each.split("=") for each in sys.argv[4:])))
