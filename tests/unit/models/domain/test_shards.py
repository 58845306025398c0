from models.domain.instruments import INSTRUMENTS
from models.domain.shards import shard_of


def test_a_symbol_never_changes_its_shard() -> None:
    """These numbers are written in databases: they may not change with a release or a machine."""
    assert [shard_of(symbol, 16) for symbol in ("BTC-USDT", "LTC-BTC", "ETH-USD")] == [15, 12, 15]
    assert {shard_of(instrument.symbol, 1) for instrument in INSTRUMENTS} == {0}
