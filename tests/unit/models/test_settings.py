"""The bus's address: Redis, or Kafka for the topics alone; and which pairs are read."""

import pytest
from pydantic import ValidationError

from models.settings import Settings

BROKER = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFILL_BROKER_URL", BROKER)


@pytest.mark.parametrize(
    ("url", "bus", "kafka"),
    [
        ("", BROKER, None),
        ("redis://127.0.0.1:2/0", "redis://127.0.0.1:2/0", None),
        ("kafka://a:1, b:2", BROKER, "a:1,b:2"),
        ("kafka://a", BROKER, "a:9092"),
        ("kafka://[::1]:7", BROKER, "[::1]:7"),
    ],
)
def test_kafka_carries_the_topics_alone(monkeypatch: pytest.MonkeyPatch, url: str, bus: str, kafka: str | None) -> None:
    """Everything internal stays on Redis: the broker's, where the bus's own is not named."""
    monkeypatch.setenv("CROSSFILL_BUS_URL", url)
    assert (Settings().bus, Settings().kafka) == (bus, kafka)


@pytest.mark.parametrize(
    "url", ["kafka://", "kafka://a,,b", "kafka://a:0", "kafka://a:99999", "kafka://u:s3cret@a:1", "amqp://u:s3cret@a"]
)
def test_an_address_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """With what would be right, and without repeating a password."""
    monkeypatch.setenv("CROSSFILL_BUS_URL", url)
    with pytest.raises(ValidationError, match="kafka://host:port") as caught:
        Settings()
    assert "s3cret" not in str(caught.value)


def test_venues_that_list_none_of_the_pairs_are_not_read() -> None:
    """Pairs may be in any spelling; one that there is not is refused with near ones."""
    settings = Settings(pairs="btcusd, ETH_USD, BTC-USD", venues="binance,coinbase")
    assert settings.venue_names == ("coinbase",)
    assert settings.reads("ETH-USD")
    assert not settings.reads("BTC-USDT")
    assert Settings(venues="binance,coinbase").venue_names == ("binance", "coinbase")
    with pytest.raises(ValidationError, match="did you mean BTC-USD,"):
        Settings(pairs="BTC-USTD")
