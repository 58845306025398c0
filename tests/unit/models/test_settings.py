"""The bus's address: Redis, or Kafka for the topics alone; and which pairs are read."""

import pytest
from pydantic import SecretStr, ValidationError

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
        ("kafka+ssl://a,b:2", BROKER, "a:9093,b:2"),
        ("kafka+ssl://user:s3%40cr@t@a,b:2/", BROKER, "a:9093,b:2"),
    ],
)
def test_kafka_carries_the_topics_alone(monkeypatch: pytest.MonkeyPatch, url: str, bus: str, kafka: str | None) -> None:
    """Everything internal stays on Redis: the broker's, where the bus's own is not named."""
    monkeypatch.setenv("CROSSFILL_BUS_URL", url)
    assert (Settings().bus, Settings().kafka) == (bus, kafka)


def test_what_kafkas_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS and who signs in by the URL; more by options, which count more; and neither is shown."""
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka://a")
    assert Settings().kafka_client == {}
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka+ssl://a")
    assert Settings().kafka_client == {"security.protocol": "SSL"}
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka+ssl://us%3Aer:s3%40cr@t@a,b:2")
    monkeypatch.setenv(
        "CROSSFILL_KAFKA_OPTIONS", '{"sasl.mechanism": "SCRAM-SHA-512", "retries": 7, "log.queue": true}'
    )
    told = Settings()
    assert told.kafka_client == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "us:er",
        "sasl.password": "s3@cr@t",
        "retries": "7",
        "log.queue": "true",
    }
    assert not any(secret in f"{told!r}{told}" for secret in ("s3", "SCRAM"))


@pytest.mark.parametrize("options", ["{", "[]", '{"sasl.password": ["s3cret"]}', '{"sasl.password": "s3cret"'])
def test_options_that_are_none_are_refused(options: str) -> None:
    """Without repeating them."""
    with pytest.raises(ValidationError, match="a JSON object of options") as caught:
        Settings(kafka_options=SecretStr(options))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["kafka+ssl://user@a", "kafka+ssl://user:@a", "kafka+ssl://@a", "kafka://u:s3cret@a"])
def test_who_signs_in_does_it_wholly_and_not_in_the_clear(url: str) -> None:
    """A password over a plain connection is a matter of options, where it is meant."""
    with pytest.raises(ValidationError, match="kafka\\+ssl://user:password@host") as caught:
        Settings(bus_url=SecretStr(url))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["kafka://", "kafka://a,,b", "kafka://a:0", "kafka://a:99999", "kafka+ssl://u:s3cret@a:0", "amqp://u:s3cret@a"],
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
