"""cryptofeed, as its authors ship it, reads the simulated exchanges over TLS.

Two versions do: the newest, which needs Python 3.13, and the last that is made for Python 3.11 and needs no compiler.
That one speaks Kraken's old API, which the simulator does not have, has no ticker of HTX, and asks for Deribit's
trades as they come, which needs an account. Coinbase is left out: the newest speaks another API of it.
"""

import ssl
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.peers import clients
from tests.peers.simulated import simulated

NEWEST = "newest.txt"
LAST = "requirements.txt"
CHANNELS = {
    (NEWEST, "binance"): {"quote": "bookTicker", "trade": "aggTrade"},
    (NEWEST, "kraken"): {"quote": "ticker", "trade": "trade"},
    (NEWEST, "htx"): {"quote": "ticker", "trade": "trade.detail"},
    (NEWEST, "okx"): {"quote": "tickers", "trade": "trades"},
    (NEWEST, "deribit"): {"quote": "quote", "trade": "trades"},
    (LAST, "binance"): {"quote": "bookTicker", "trade": "aggTrade"},
    (LAST, "htx"): {"trade": "trade.detail"},
    (LAST, "okx"): {"quote": "tickers", "trade": "trades"},
    (LAST, "deribit"): {"quote": "quote"},
}
NEWEST_NEEDS = (3, 13)
FIELDS = {"quote": {"bid", "ask"}, "trade": {"id", "side", "price", "size"}}
SIZED = {"bid", "bid_size", "ask", "ask_size"}  # of Deribit's quotes; its other tickers have no sizes


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key."""
    command = [clients.interpreter(LAST), clients.SCRIPTS / "make_certificate.py"]
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


def python_of(lock: str) -> Path:
    """Return the Python that has this cryptofeed. Skips the test where it cannot be had."""
    if lock == LAST:
        python = clients.interpreter(LAST)
        if not clients.has(python, "cryptofeed"):
            pytest.skip("this cryptofeed is for Python 3.11 on Linux (x86-64)")
        return python
    found = clients.python_since(*NEWEST_NEEDS)
    if found is None:
        pytest.skip("the newest cryptofeed needs Python 3.13, and this machine has none")
    return clients.interpreter(NEWEST, found)


@pytest.mark.parametrize(("lock", "venue"), CHANNELS)
def test_it_receives_what_the_venue_sent(lock: str, venue: str, certificate: Path, tmp_path: Path) -> None:
    """Its Decimals are those sent, each quote and each trade in its order, and none is missing."""
    python, channels = python_of(lock), CHANNELS[lock, venue]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with simulated(venue, tls) as server:
        products = [f"{symbol}={product_id}" for symbol, product_id in server.products().items()]
        command: list[str | Path] = [
            python,
            clients.SCRIPTS / "read_cryptofeed.py",
            venue,
            f"wss://127.0.0.1:{server.port}",
        ]
        command += [str(clients.READ_S_MAX), *products]
        printed = clients.received(command, tmp_path, channels, len(products), SSL_CERT_FILE=str(certificate))
    for kind, channel in channels.items():
        sent = server.said(kind, channel)
        for product_id, got in clients.by_product(printed, kind).items():
            assert set(got[0]) == (SIZED if channel == "quote" else FIELDS[kind])
            assert clients.is_run(got, sent[product_id], Decimal), product_id
