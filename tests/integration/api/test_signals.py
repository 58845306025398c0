"""GET /signals over HTTP: open to everybody."""

from decimal import Decimal
from typing import Any

import httpx
from msgspec.structs import replace

from models.domain.signals import Cross, Signal
from models.store.database import Database
from models.store.signals import insert_signals

HOUR_US = 3_600_000_000
NOON_US = 472_236 * HOUR_US
SIGNAL = Signal(
    *("golden-cross", 2, "a", "all", "BTC-USDT", 3_600, NOON_US, Cross.GOLDEN),
    *(Decimal("63508.50"), Decimal("1E+2"), Decimal("99.5"), NOON_US + HOUR_US + 2_000_000, "simulated"),
)


def read(client: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = client.get("/signals", params=query, headers={"Authorization": ""})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_signal_says_what_was_seen(client: httpx.Client, database: Database) -> None:
    """Numbers as texts, times RFC 3339; those of another market are not shown."""
    insert_signals(database, [SIGNAL, replace(SIGNAL, market="live")])
    assert read(client)["signals"] == [
        {
            "strategy": "golden-cross",
            "version": 2,
            "variant": "a",
            "venue": "all",
            "pair": "BTC-USDT",
            "interval": "1h",
            "open_time": "2023-11-15T12:00:00.000000Z",
            "cross": "golden_cross",
            "close": "63508.5",
            "fast": "100",
            "slow": "99.5",
            "raised": "2023-11-15T13:00:02.000000Z",
            "market": "simulated",
        }
    ]


def test_without_signals_the_answer_says_so(client: httpx.Client, database: Database) -> None:
    """It is no error."""
    problem = "no signal was raised yet in the simulated market"
    assert read(client) == {"signals": [], "next_cursor": None, "problem": problem}
    insert_signals(database, [SIGNAL])
    assert "problem" not in read(client)
    assert read(client, variant="b")["problem"] == (
        "no signal of what is asked for was raised yet in the simulated market"
    )


def test_signals_come_newest_first_in_pages(client: httpx.Client, database: Database) -> None:
    """Of a pair, a strategy, a variant, or all."""
    made = [
        replace(
            SIGNAL,
            open_time_us=NOON_US + hour * HOUR_US,
            variant="ab"[hour % 2],
            symbol=("BTC-USDT", "ETH-USDT")[hour % 3 == 0],
            close=Decimal(hour),
        )
        for hour in range(30)
    ]
    insert_signals(database, made)
    hours = [int(each["close"]) for each in read(client)["signals"]]
    assert hours == list(range(29, -1, -1))
    pages = [read(client, pair="ethusdt", variant="b", limit=2)]
    while pages[-1]["next_cursor"] is not None:
        pages.append(read(client, pair="ethusdt", variant="b", limit=2, cursor=pages[-1]["next_cursor"]))
    assert [[int(each["close"]) for each in page["signals"]] for page in pages] == [[27, 21], [15, 9], [3]]
    answer = client.get("/signals?limit=29")
    assert [each["close"] for each in client.get(answer.links["next"]["url"]).json()["signals"]] == ["0"]
    assert len(read(client, strategy="golden-cross")["signals"]) == 30
    assert read(client, strategy="other")["signals"] == []


def test_what_cannot_be_asked_is_named(client: httpx.Client) -> None:
    """The field, what was wrong and what would be right."""
    for query, field in {"limit=0": "limit", "cursor=eA": "cursor", "cursor=wrI": "cursor", "pairs=x": "pairs"}.items():
        answer = client.get(f"/signals?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == field
    unknown = client.get("/signals?pair=LTCBTX")
    assert unknown.status_code == 404
    assert "LTC-BTC" in unknown.json()["near"]
