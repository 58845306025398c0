"""The venues that can be read. A new venue is one package and one line here."""

from collections.abc import Callable, Sequence

from exchanges.binance.protocol import Binance
from exchanges.coinbase.protocol import Coinbase
from exchanges.deribit.protocol import Deribit
from exchanges.htx.protocol import Htx
from exchanges.kraken.protocol import Kraken
from exchanges.okx.protocol import Okx, OkxBusiness
from exchanges.protocol import VenueProtocol

# venue -> (address or None for the venue's own, product ids, connection token) -> protocol
PROTOCOLS: dict[str, Callable[[str | None, Sequence[str], int], VenueProtocol]] = {
    "binance": Binance,
    "coinbase": Coinbase,
    "kraken": Kraken,
    "htx": Htx,
    "okx": Okx,
    "deribit": Deribit,
}

# A second connection, for candles, where a venue has them at another address.
COMPANIONS: dict[str, Callable[[str | None, Sequence[str], int], VenueProtocol]] = {"okx": OkxBusiness}
