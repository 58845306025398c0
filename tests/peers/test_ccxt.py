"""ccxt.pro, as its authors ship it, reads the simulated exchanges."""

from pathlib import Path

import pytest

from tests.peers import clients
from tests.peers.simulated import SYMBOLS, simulated

LOCK = "requirements.txt"
BEST = {"bid", "bid_size", "ask", "ask_size"}
FIELDS = dict.fromkeys(SYMBOLS, BEST) | {"htx": {"open", "high", "low", "last", "volume", "turnover"}}


@pytest.mark.parametrize("venue", SYMBOLS)
def test_it_receives_what_the_venue_sent(venue: str, tmp_path: Path) -> None:
    """Its floats are those of the texts sent. It keeps the latest quote only, and every trade."""
    python = clients.interpreter(LOCK)
    with simulated(venue) as server:
        products = [f"{symbol.replace('-', '/')}={product_id}" for symbol, product_id in server.products().items()]
        command: list[str | Path] = [python, clients.SCRIPTS / "read_ccxt.py", venue, f"ws://127.0.0.1:{server.port}"]
        printed = clients.received(
            [*command, str(clients.READ_S_MAX), *products], tmp_path, ("quote", "trade"), len(products)
        )
    quotes, trades = server.said("quote"), server.said("trade")
    for product_id, got in clients.by_product(printed, "quote").items():
        assert set(got[0]) == FIELDS[venue]
        assert clients.is_in_order(got, quotes[product_id], float), product_id
    for product_id, got in clients.by_product(printed, "trade").items():
        assert set(got[0]) == {"id", "side", "price", "size"}
        assert clients.is_run(got, trades[product_id], float), product_id
