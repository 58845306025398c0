"""GET /candles over HTTP, on both databases and a real bus: open to everybody."""

import csv
import io
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.candles import COLUMNS
from models.bus.analysis import tell_candles
from models.bus.client import connect
from models.domain.candles import Candle
from models.domain.pasts import PastCandle
from models.settings import Settings
from models.store.candles import Check, Series, note_checks, upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.pasts import PastRow, put_pasts
from tests.integration.api.serving import serving

MINUTE_US = 60_000_000
THEN_US = 1_700_000_040_000_000  # a whole minute


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """The URL of a fresh, migrated database of either kind."""
    url: str = database_url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return url


def candle(open_time_us: int, close: str = "100.50", **values: Any) -> Candle:
    at = {"venue": "binance", "symbol": "BTC-USDT", "interval_s": 60, "market": "simulated", "trades": 3}
    prices = {"open": Decimal(100), "high": Decimal("1E+3"), "low": Decimal(99), "close": Decimal(close)}
    sizes = {"volume": Decimal(3), "quote_volume": Decimal(301), "taker_buy_volume": Decimal("0.5")}
    return Candle(**{**at, **prices, **sizes, "open_time_us": open_time_us, **values})


def minute(number: int, close: str = "100.50", **values: Any) -> Candle:
    return candle(THEN_US + number * MINUTE_US, close, **values)


def still_made(redis_url: str, made: Candle, name: str = "binance:1m") -> None:
    with connect(redis_url) as bus, bus.pipeline() as pipeline:
        tell_candles(pipeline, "BTC-USDT", {name: made})
        pipeline.execute()


def read(client: httpx.Client, path: str = "/candles/BTC-USDT", **query: Any) -> dict[str, Any]:
    answer = client.get(path, params={"venue": "binance", **query})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def at(number: int) -> str:
    return str(rfc3339(THEN_US + number * MINUTE_US))


def opened(answer: dict[str, Any]) -> list[int]:
    numbers = {at(number): number for number in range(-400, 400)}
    return [numbers[each["open_time"]] for each in answer["candles"]]


def test_a_candle_says_all_that_is_known_of_it(client: httpx.Client, database: Database) -> None:
    """Without a token; the newest revision, numbers as texts, and how ours compare with the venue's own."""
    upsert_candles(database, [minute(0), minute(0, "101", revision=1, incomplete=True)])
    series = Series("simulated", "binance", "BTC-USDT", 60)
    note_checks(database, [Check(series, 7, 1, {"field": "volume", "ours": "3", "theirs": "4"}, THEN_US)])
    answer = client.get("/candles/btc/usdt?venue=binance", headers={"Authorization": ""})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "pair": "BTC-USDT",
        "venue": "binance",
        "interval": "1m",
        "market": "simulated",
        "source": "ours",
        "candles": [
            {
                "open_time": at(0),
                "open": "100",
                "high": "1000",
                "low": "99",
                "close": "101",
                "volume": "3",
                "quote_volume": "301",
                "vwap": "100.3333333333333333333333333",
                "taker_buy_volume": "0.5",
                "trades": 3,
                "revision": 1,
                "incomplete": True,
                "closed": True,
            }
        ],
        "next_cursor": None,
        "checked": {
            "compared": 7,
            "differing": 1,
            "last_difference": {"field": "volume", "ours": "3", "theirs": "4"},
            "last_difference_time": at(0),
        },
    }


def told(number: int, close: int = 100, **values: Any) -> PastCandle:
    return PastCandle(THEN_US + number * MINUTE_US, *(Decimal(close),) * 4, Decimal(2), **values)


def test_what_the_venue_told_of_its_past_is_shown_apart(client: httpx.Client, database: Database) -> None:
    """With what it does not say as null, and never among ours; ours of the same minute stay what they are."""
    upsert_candles(database, [minute(0, "101")])
    series = Series("simulated", "binance", "BTC-USDT", 60)
    put_pasts(database, [PastRow(series=series)], [told(0, quote_volume=Decimal(201), trades=4), told(1, 99)])
    answer = read(client, source="venue")
    assert (answer["source"], answer["next_cursor"], "problem" in answer) == ("venue", None, False)
    first, second = answer["candles"]
    assert (first["open_time"], first["close"], first["vwap"], first["trades"]) == (at(0), "100", "100.5", 4)
    unsaid = {name for name, value in second.items() if value is None}
    assert unsaid == {"quote_volume", "vwap", "taker_buy_volume", "trades"}
    assert [(each["open_time"], each["close"]) for each in read(client)["candles"]] == [(at(0), "101")]
    text = client.get("/candles/BTC-USDT", params={"venue": "binance", "source": "venue", "format": "csv"}).text
    assert text.splitlines()[2] == f"{at(1)},99,99,99,99,2,,,,,0,false,true"


@pytest.mark.parametrize("start", [None, at(2)])
def test_pages_of_a_venues_past_lead_through_all_of_it(
    client: httpx.Client, database: Database, start: str | None
) -> None:
    """Onward from a start, or back from the end."""
    series = Series("simulated", "binance", "BTC-USDT", 60)
    put_pasts(database, [PastRow(series=series)], [told(number) for number in range(9)])
    given: dict[str, Any] = {"source": "venue", "limit": 3, **({} if start is None else {"start": start})}
    pages = [read(client, **given)]
    while pages[-1]["next_cursor"]:
        pages.append(read(client, **given, cursor=pages[-1]["next_cursor"]))
    ordered = pages if start else pages[::-1]
    assert [number for page in ordered for number in opened(page)] == list(range(2 if start else 0, 9))


def test_a_venue_that_told_nothing_is_said_to(client: httpx.Client, database: Database) -> None:
    """With why, where we know; all venues together tell none."""
    assert read(client, source="venue")["problem"].endswith("it was not asked for 1m candles of BTC-USDT")
    series = Series("simulated", "binance", "BTC-USDT", 60)
    put_pasts(database, [PastRow(series=series, problem="the answer is 503 Service Unavailable")])
    assert read(client, source="venue")["problem"].endswith(": the answer is 503 Service Unavailable")
    for query in ({"source": "theirs"}, {"source": "venue", "venue": "all"}):
        answer = client.get("/candles/BTC-USDT", params={"venue": "binance", **query})
        assert answer.status_code == 422, answer.text


def test_empty_candles_are_made_where_it_is_known_that_nothing_was_traded(
    client: httpx.Client, database: Database
) -> None:
    """Between those of the record, also before the first of a page; never before the first nor after the last."""
    upsert_candles(database, [minute(0, "7"), minute(5, "8")])
    answer = read(client)
    assert opened(answer) == [0, 1, 2, 3, 4, 5]
    empty = answer["candles"][2]
    assert [empty[name] for name in ("open", "high", "low", "close")] == ["7"] * 4
    assert (empty["volume"], empty["trades"], empty["vwap"], empty["closed"]) == ("0", 0, None, True)
    assert answer["checked"] is None
    assert opened(read(client, fill="false")) == [0, 5]
    assert opened(read(client, start=at(3))) == [3, 4, 5]
    assert opened(read(client, start=at(-9), end=at(2))) == [0, 1]
    assert opened(read(client, end=at(4))) == [0, 1, 2, 3]
    assert opened(read(client, end=at(4), limit=2)) == [2, 3]
    assert opened(read(client, start=at(2), end=at(300), fill="false")) == [5]


def test_the_one_that_is_still_made_is_the_last(client: httpx.Client, database: Database, redis_url: str) -> None:
    """From the bus, where the range reaches it; of another market it is none."""
    upsert_candles(database, [minute(0, "7")])
    still_made(redis_url, minute(3, "9", closed=False))
    still_made(redis_url, candle(THEN_US + 200_000_000, interval_s=1, closed=False), "binance:1s")
    answer = read(client)
    assert opened(answer) == [0, 1, 2, 3]
    assert [each["close"] for each in answer["candles"]] == ["7", "7", "7", "9"]
    assert [each["closed"] for each in answer["candles"]] == [True, True, True, False]
    assert opened(read(client, end=at(3))) == [0, 1, 2]
    assert opened(read(client, fill="false")) == [0, 3]
    assert opened(read(client, limit=1)) == [3]
    assert opened(read(client, start=at(3))) == [3]
    assert read(client, venue="okx")["candles"] == []
    upsert_candles(database, [minute(3, "10")])
    assert read(client, limit=1)["candles"][0]["close"] == "10"  # closed, and the bus does not say so yet
    still_made(redis_url, minute(5, "9", closed=False, market="replay"))
    assert opened(read(client)) == [0, 1, 2, 3]


def test_what_may_still_be_on_its_way_is_not_made_up(client: httpx.Client, database: Database, redis_url: str) -> None:
    """A candle closes after a grace period and is stored after that, by the market's clock, which may stand still."""
    upsert_candles(database, [minute(0, "7")])
    still_made(redis_url, minute(3, "9", closed=False))
    assert opened(read(client)) == [0, 1, 3]
    for seconds, numbers in {180: [0, 1, 3], 189: [0, 1, 3], 190: [0, 1, 2, 3], 239: [0, 1, 2, 3]}.items():
        still_made(redis_url, candle(THEN_US + seconds * 1_000_000, interval_s=1, closed=False), "binance:1s")
        assert opened(read(client)) == numbers


def test_pages_are_the_whole_in_parts(client: httpx.Client, database: Database, redis_url: str) -> None:
    """From the start on, or from the end back; `next_cursor` and the Link header lead on."""
    upsert_candles(database, [minute(number, str(number)) for number in (0, 1, 2, 7, 8, 20, 21)])
    still_made(redis_url, minute(23, closed=False))
    ranges: list[dict[str, str]] = [{}, {"start": at(1)}, {"start": at(1), "end": at(20)}, {"end": at(9)}]
    for query in [{**ends, "fill": fill} for ends in ranges for fill in ("true", "false")]:
        whole = read(client, **query, limit=1000)
        assert whole["next_cursor"] is None
        for limit in (1, 3, 10):
            pages = [read(client, **query, limit=limit)]
            while (cursor := pages[-1]["next_cursor"]) is not None:
                pages.append(read(client, **query, limit=limit, cursor=cursor))
            in_order = pages if "start" in query else pages[::-1]
            assert [each for page in in_order for each in page["candles"]] == whole["candles"]
            assert all(1 <= len(page["candles"]) <= limit for page in pages)
        answer = client.get("/candles/BTC-USDT", params={"venue": "binance", **query, "limit": 2})
        following = client.get(answer.links["next"]["url"]).json()
        assert following == read(client, **query, limit=2, cursor=answer.json()["next_cursor"])


def test_a_page_is_full_where_the_newest_ones_are_not_known_yet(
    client: httpx.Client, database: Database, redis_url: str
) -> None:
    """Ten seconds before the market's clock are not settled, and so many candles asked for are so many shown."""
    upsert_candles(database, [candle(THEN_US + each * 1_000_000, interval_s=1) for each in (0, 3)])
    still_made(redis_url, candle(THEN_US + 9_000_000, interval_s=1, closed=False), "binance:1s")
    answer = read(client, interval="1s", limit=3)
    assert [each["open_time"][17:19] for each in answer["candles"]] == ["02", "03", "09"]
    before = read(client, interval="1s", limit=3, cursor=answer["next_cursor"])
    assert [each["open_time"][17:19] for each in before["candles"]] == ["00", "01"]


def test_a_range_of_years_is_answered_with_a_page(client: httpx.Client, database: Database) -> None:
    """Whatever lies between two candles of a second."""
    long_ago = candle(1_000_000_000_000_000, "5", interval_s=1)
    upsert_candles(database, [long_ago, candle(THEN_US, "6", interval_s=1)])
    assert [each["close"] for each in read(client, interval="1s", limit=3)["candles"]] == ["5", "5", "6"]
    onward = read(client, interval="1s", limit=3, start="2001-01-01T00:00:00Z")["candles"]
    assert [each["open_time"] for each in onward] == [f"2001-09-09T01:46:4{second}.000000Z" for second in range(3)]
    assert read(client, interval="1s", start="0001-01-01T00:00:00+14:00", limit=1)["candles"] == onward[:1]


def in_csv(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_csv_has_the_same_columns(client: httpx.Client, database: Database) -> None:
    """And its pages follow the Link header."""
    upsert_candles(database, [minute(0), minute(2)])
    answer = client.get("/candles/BTCUSDT?venue=binance&format=csv&limit=2")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    shown = read(client, limit=2)["candles"]
    assert list(rows[0]) == list(shown[0])
    assert rows == [{name: in_csv(value) for name, value in row.items()} for row in shown]
    assert len(list(csv.DictReader(io.StringIO(client.get(answer.links["next"]["url"]).text)))) == 1


def test_a_second_without_trades_is_as_doubtful_as_its_minute(
    client: httpx.Client, database: Database, redis_url: str
) -> None:
    """Nothing is stored of it, so its minute says whether somebody looked: a stored one or the one still made."""

    def second(number: int) -> Candle:
        return candle(THEN_US + number * 1_000_000, interval_s=1)

    def doubtful() -> list[int]:
        shown = read(client, interval="1s", limit=1000)["candles"]
        return [place for place, each in enumerate(shown) if each["incomplete"]]

    upsert_candles(database, [second(0), second(30), second(90), second(150)])
    upsert_candles(database, [minute(0), minute(1, incomplete=True)])
    still_made(redis_url, minute(2))
    assert doubtful() == [*range(60, 90), *range(91, 120)]
    still_made(redis_url, minute(2, incomplete=True))
    assert doubtful() == [*range(60, 90), *range(91, 150)]
    assert not any(each["incomplete"] for each in read(client, interval="1s", fill=False)["candles"])


def test_a_range_without_data_says_so(client: httpx.Client, database: Database) -> None:
    """It is no error."""
    answer = read(client)
    assert (answer["candles"], answer["next_cursor"]) == ([], None)
    assert answer["problem"] == "there is no 1m candle of BTC-USDT at binance yet"
    empty = client.get("/candles/BTC-USDT?venue=binance&format=csv")
    assert empty.headers["Crossfill-Problem"] == answer["problem"]
    assert empty.text.splitlines() == [",".join(COLUMNS)]
    upsert_candles(database, [minute(0), minute(2)])
    answer = read(client, start=at(10), end=at(20))
    assert answer["candles"] == []
    assert answer["problem"] == (
        f"there is no 1m candle of BTC-USDT at binance in this range; the first one opened at {at(0)}, "
        f"the last one at {at(2)}"
    )
    assert "over all venues yet" in read(client, venue="all")["problem"]


BAD = [
    ("interval=2m", "interval", "'2m' is unknown; one of 1s, 1m, 5m, 15m, 1h, 4h, 1d"),
    ("venue=nowhere", "venue", "'nowhere' has no trades of BTC-USDT; one of all, "),
    ("start=2026-11-21T12:00:00Z&end=2026-11-21T11:00:00Z", "start", "2026-11-21T12:00:00Z is not before the end"),
    ("start=2026-11-21T12:00:00Z&end=2026-11-21T12:00:00Z", "start", "is not before the end"),
    ("end=1960-01-01T00:00:00Z", "end", "is before the first candles that there may be"),
    ("start=yesterday", "start", "'yesterday' is no time; give one as 2026-11-21T12:00:00Z"),
    ("end=2026-11-21T12:00:00", "end", "names no time zone; end it with Z for UTC"),
    ("limit=0", "limit", "greater than or equal to 1"),
    ("limit=1001", "limit", "less than or equal to 1000"),
    ("format=xml", "format", "'xml' is unknown; json or csv"),
    ("cursor=bjEyYQ", "cursor", "is none of ours; take `next_cursor` of the page before"),
    ("cursor=x", "cursor", "is none of ours"),
    ("windows=1", "windows", "is unknown"),
]


def test_what_cannot_be_asked_is_named(client: httpx.Client) -> None:
    """The field, what was wrong and what would be right."""
    for query, field, words in BAD:
        answer = client.get(f"/candles/BTC-USDT?{query}")
        assert answer.status_code == 422, query
        [problem] = answer.json()["errors"]
        assert problem["field"] == field
        assert words in problem["problem"]


def test_an_unknown_pair_is_told_what_is_near(client: httpx.Client) -> None:
    """As everywhere."""
    answer = client.get("/candles/LTCBTX")
    assert answer.status_code == 404
    assert "LTC-BTC" in answer.json()["near"]


def test_without_the_bus_the_record_is_shown(settings: Settings, database: Database) -> None:
    """And that the one that is still made is missing."""
    upsert_candles(database, [minute(0)])
    nobody = settings.model_copy(update={"bus_url": SecretStr("redis://127.0.0.1:1/0")})
    with serving(nobody) as client:
        answer = read(client)
    assert opened(answer) == [0]
    assert answer["problem"].startswith("the candle that is still made cannot be read: ")
