"""The venues that can be read. A new venue is one package and one line here."""

from collections.abc import Callable, Sequence

from exchanges.binance import products as binance
from exchanges.binance.pasts import PAST as BINANCE_PAST
from exchanges.binance.protocol import Binance
from exchanges.coinbase import products as coinbase
from exchanges.coinbase.pasts import PAST as COINBASE_PAST
from exchanges.coinbase.protocol import Coinbase
from exchanges.deribit import products as deribit
from exchanges.deribit.pasts import PAST as DERIBIT_PAST
from exchanges.deribit.protocol import Deribit
from exchanges.htx import products as htx
from exchanges.htx.pasts import PAST as HTX_PAST
from exchanges.htx.protocol import Htx
from exchanges.kraken import products as kraken
from exchanges.kraken.pasts import PAST as KRAKEN_PAST
from exchanges.kraken.protocol import Kraken
from exchanges.okx import products as okx
from exchanges.okx.pasts import PAST as OKX_PAST
from exchanges.okx.protocol import Okx, OkxBusiness
from exchanges.pasts import Past
from exchanges.protocol import VenueProtocol
from models.domain.instruments import Listed

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

# venue -> the address of its list of instruments, and what reads it
LISTS: dict[str, tuple[str, Callable[[bytes], list[Listed]]]] = {
    "binance": (binance.URL, binance.parse),
    "coinbase": (coinbase.URL, coinbase.parse),
    "kraken": (kraken.URL, kraken.parse),
    "htx": (htx.URL, htx.parse),
    "okx": (okx.URL, okx.parse),
    "deribit": (deribit.URL, deribit.parse),
}

# venue -> how it tells candles of the past
PASTS: dict[str, Past] = {
    "binance": BINANCE_PAST,
    "coinbase": COINBASE_PAST,
    "kraken": KRAKEN_PAST,
    "htx": HTX_PAST,
    "okx": OKX_PAST,
    "deribit": DERIBIT_PAST,
}
