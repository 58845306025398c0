"""Feed frames to cryptofeed's or ccxt.pro's handler and print microseconds a frame, and how many objects came of them.

Run by the peers' interpreter (tests/peers): arguments are the peer and a file that benchmarks/peers.py wrote.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

ROUNDS = 5


async def best(work: Callable[[], Awaitable[object]], count: int) -> float:
    """Return microseconds a frame, of the fastest round."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await work()
        times.append(time.perf_counter() - started)
    return min(times) / count * 1e6


async def cryptofeed(venue: str, kind: str, products: Mapping[str, str], frames: Sequence[Any]) -> tuple[float, int]:
    """Return microseconds a frame from the text (HTX: from gzip) to the callback, which does nothing."""
    from cryptofeed import exchanges  # noqa: PLC0415 -- each peer has an environment of its own
    from cryptofeed.defines import L1_BOOK, TICKER, TRADES  # noqa: PLC0415 -- likewise
    from cryptofeed.symbols import Symbols  # noqa: PLC0415 -- likewise

    from tests.peers.python.read_cryptofeed import CLASSES  # noqa: PLC0415 -- it imports cryptofeed

    made: list[Any] = []

    async def note(said: object, _received: float) -> None:
        made.append(said)

    async def nothing(_said: object, _received: float) -> None:
        pass

    channel = TRADES if kind == "trades" else L1_BOOK if venue == "deribit" else TICKER
    exchange = getattr(exchanges, CLASSES[venue])
    Symbols.set(exchange.id, dict(products), {"instrument_type": dict.fromkeys(products, "spot")})

    def feed(callback: Callable[[object, float], Awaitable[None]]) -> Callable[[Any, Any, float], Awaitable[None]]:
        built = exchange(symbols=list(products), channels=[channel], callbacks={channel: callback}, retries=0)
        handler: Callable[[Any, Any, float], Awaitable[None]] = built.message_handler
        return handler

    async def work(handler: Callable[[Any, Any, float], Awaitable[None]]) -> None:
        for frame in frames:
            await handler(frame, None, 1.0)

    await work(feed(note))
    prices = ("price", "amount") if kind == "trades" else ("bid", "ask", "bid_price", "ask_price")
    for said in made:
        numbers = [getattr(said, name) for name in prices if hasattr(said, name)]
        assert len(numbers) == 2, said
        assert all(isinstance(number, Decimal) for number in numbers), said
    quiet = feed(nothing)
    return await best(lambda: work(quiet), len(frames)), len(made)


async def ccxt(venue: str, kind: str, products: Mapping[str, str], frames: Sequence[Any]) -> tuple[float, int]:
    """Return microseconds a frame from the socket's message (HTX: gzip) to what a waiting caller would get."""
    import ccxt.pro  # noqa: PLC0415 -- likewise
    from aiohttp import WSMessage, WSMsgType  # noqa: PLC0415 -- likewise

    from tests.peers.python.read_ccxt import CLASSES, market  # noqa: PLC0415 -- it imports ccxt

    exchange = getattr(ccxt.pro, CLASSES.get(venue, venue))()
    try:
        exchange.set_markets(
            [market(exchange, f"{symbol.replace('-', '/')}={id_}") for symbol, id_ in products.items()]
        )
        # Nobody waits: what is resolved goes nowhere. Its address says that it is the spot market's.
        client = exchange.client({"binance": "wss://stream.binance.com:9443/ws"}.get(venue, "wss://nowhere/"))
        kind_of: dict[type, WSMsgType] = {str: WSMsgType.TEXT, bytes: WSMsgType.BINARY}
        messages = [WSMessage(kind_of[type(frame)], frame, None) for frame in frames]
        made: dict[int, Any] = {}
        last = 0

        def resolve(result: Any, _name: str) -> Any:  # noqa: ANN401 -- whatever ccxt makes
            made[last] = result
            return result

        client.resolve = resolve
        for last, message in enumerate(messages):  # noqa: B007 -- for `resolve`
            client.handle_message(message)
        del client.resolve
        fields = ("price", "amount") if kind == "trades" else ("bid", "ask")
        for result in made.values():
            said = result[-1] if kind == "trades" else result
            said = said if fields[0] in said else next(iter(said.values()))  # by symbol
            assert all(isinstance(said[name], float) for name in fields), said

        async def work() -> None:
            for message in messages:
                client.handle_message(message)

        return await best(work, len(messages)), len(made)
    finally:
        await exchange.close()


def main(peer: str, path: str) -> None:
    """Measure one peer with one file."""
    told = json.loads(Path(path).read_text())
    frames = [base64.b64decode(frame) for frame in told["frames"]] if told["binary"] else told["frames"]
    measure = {"cryptofeed": cryptofeed, "ccxt": ccxt}[peer]
    took_us, made = asyncio.run(measure(told["venue"], told["kind"], told["products"], frames))
    print(json.dumps({"us": took_us, "made": made}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
