"""Whom to ask for the past, and when to ask again."""

import pytest

from exchanges.registry import PASTS
from models.domain.quotes import Market
from models.settings import Settings
from workers.pasts import addresses_of, asked_s, pause_s

NOW_S = 1_790_272_800.0  # 2026-09-24 18:00:00 UTC


def test_a_live_market_is_asked_at_the_venues_own_addresses() -> None:
    """Not a venue that is read elsewhere: it may be another one."""
    settings = Settings(market=Market.LIVE, venues="binance,okx,elsewhere", venue_urls={"okx": "wss://example.test"})
    assert addresses_of(settings) == {"binance": PASTS["binance"].own_url}


def test_a_simulated_market_is_asked_where_it_is_read() -> None:
    """No venue's own address is asked for made-up prices."""
    urls = {"binance": "ws://127.0.0.1:9001", "htx": "wss://simulator.test:9004/path"}
    settings = Settings(market=Market.SIMULATED, venues="binance,htx,okx", venue_urls=urls)
    assert addresses_of(settings) == {"binance": "http://127.0.0.1:9001", "htx": "https://simulator.test:9004"}


def test_a_replay_asks_nobody() -> None:
    """A recording has no past."""
    assert addresses_of(Settings(market=Market.REPLAY, venue_urls={"binance": "ws://127.0.0.1:9001"})) == {}


@pytest.mark.parametrize(
    ("attempts", "asked", "seconds"),
    [(1, 0, 5), (2, 0, 10), (5, 0, 80), (40, 0, 3_600), (1, 60, 60), (3, 7, 20), (40, 7_200, 7_200), (1, 1e9, 86_400)],
)
def test_a_venue_that_fails_is_left_alone_for_longer_each_time(attempts: int, asked: float, seconds: float) -> None:
    """Twice as long up to an hour; or for as long as it asks for, up to a day."""
    assert pause_s(attempts, asked) == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("120", 120),
        (" 7 ", 7),
        ("Thu, 24 Sep 2026 18:01:30 GMT", 90),
        ("Thu, 24 Sep 2026 17:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("", 0),
        ("9" * 5_000, 999_999_999),
    ],
)
def test_a_retry_after_is_a_number_or_a_date(header: str | None, seconds: float) -> None:
    """And otherwise nothing."""
    assert asked_s(header, NOW_S) == seconds
