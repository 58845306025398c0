"""The venues that can be read. A new venue is one package and one line here."""

from collections.abc import Callable, Sequence

from exchanges.binance.protocol import Binance
from exchanges.coinbase.protocol import Coinbase
from exchanges.protocol import VenueProtocol

# venue -> (address or None for the venue's own, product ids, connection token) -> protocol
PROTOCOLS: dict[str, Callable[[str | None, Sequence[str], int], VenueProtocol]] = {
    "binance": Binance,
    "coinbase": Coinbase,
}
