"""Read a venue with ccxt.pro and print what it says, one JSON object a line.

Arguments: venue, address, seconds, then the products as BASE/QUOTE=ID. Numbers are printed as ccxt's floats.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import ccxt.pro

LOOPBACK = ("127.0.0.1", "::1")
CLASSES = {"coinbase": "coinbaseexchange"}
# Where ccxt keeps the addresses that it connects to; OKX and HTX get the path that theirs have.
ADDRESSES: dict[str, Callable[[str], Any]] = {
    "binance": lambda address: {"spot": f"{address}/ws"},
    "coinbase": lambda address: address,
    "kraken": lambda address: {"publicV2": f"{address}/v2"},
    "htx": lambda address: {"api": {"spot": {"public": f"{address}/ws"}}},
    "okx": lambda address: f"{address}/ws/v5",
    "deribit": lambda address: f"{address}/ws/api/v2",
}
BEST = {"bid": "bid", "bid_size": "bidVolume", "ask": "ask", "ask_size": "askVolume"}
# HTX's `detail` has no best bid and ask.
DAY = {"open": "open", "high": "high", "low": "low", "last": "close", "volume": "baseVolume", "turnover": "quoteVolume"}


def keep_to_loopback(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse, as an audit hook, every connection that leaves this machine."""
    if event == "socket.connect" and arguments[1][0] not in LOOPBACK:
        raise PermissionError(f"not on loopback: {arguments[1]}")


def say(**said: object) -> None:
    print(json.dumps(said), flush=True)  # noqa: T201 -- its answer


def market(exchange: Any, product: str) -> dict[str, Any]:
    """Return the market that ccxt would have read from the venue's REST list."""
    symbol, _, product_id = product.partition("=")
    base, quote = symbol.split("/")
    names = {"id": product_id, "lowercaseId": product_id.lower(), "symbol": symbol, "type": "spot", "spot": True}
    assets = {"base": base, "quote": quote, "baseId": base, "quoteId": quote}
    not_it = dict.fromkeys(("contract", "swap", "future", "option", "linear", "inverse", "margin"), False)
    market: dict[str, Any] = exchange.safe_market_structure({**names, **assets, **not_it, "active": True})
    return market


async def quotes(exchange: Any, venue: str, symbols: list[str]) -> None:
    fields = DAY if venue == "htx" else BEST
    while True:
        if venue in ("coinbase", "htx"):
            (symbol,) = symbols
            tickers = {symbol: await exchange.watch_ticker(symbol)}
        else:
            tickers = await exchange.watch_bids_asks(symbols)
        for symbol, ticker in tickers.items():
            said = {name: repr(ticker[field]) for name, field in fields.items()}
            say(kind="quote", product=exchange.market_id(symbol), **said)


async def trades(exchange: Any, symbol: str) -> None:
    while True:
        for trade in await exchange.watch_trades(symbol):
            # What ccxt calls the id of a trade on HTX is a number that no float holds.
            said = {"id": str(trade["info"].get("tradeId", trade["id"])), "side": trade["side"]}
            numbers = {"price": repr(trade["price"]), "size": repr(trade["amount"])}
            say(kind="trade", product=exchange.market_id(symbol), **said, **numbers)


async def read(venue: str, address: str, seconds: float, products: Iterable[str]) -> None:
    exchange = getattr(ccxt.pro, CLASSES.get(venue, venue))()
    exchange.urls["api"]["ws"] = ADDRESSES[venue](address)
    exchange.set_markets([market(exchange, product) for product in products])
    symbols = list(exchange.symbols)
    # Both of these venues are asked for one ticker at a time.
    groups = [[symbol] for symbol in symbols] if venue in ("coinbase", "htx") else [symbols]
    works: list[Awaitable[None]] = [quotes(exchange, venue, group) for group in groups]
    works += [trades(exchange, symbol) for symbol in symbols]
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*works)
    finally:
        await exchange.close()


if __name__ == "__main__":
    sys.addaudithook(keep_to_loopback)
    asyncio.run(read(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
