"""Jobs over past windows from the POST to the result: a real archive, Redis, database and the worker's own function."""

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from models.archive.files import Archive
from models.archive.layout import Entry, Kind, Series
from models.archive.rows import Rows
from models.bus.client import connect
from models.bus.history import HistoryWriter
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle, CandleMaker, MakerState
from models.domain.history import Chunk, Print, Sample, Span
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings
from models.store.candles import Series as CandleSeries
from models.store.candles import read_candles, upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.jobs import ClaimLostError, claim_due, report
from models.store.tables import jobs
from tests.integration.api.market import SECOND_US, now_us
from workers import archive as works
from workers.archivist import Archivist
from workers.jobs import LEASE_US, WORKS, _work, run_due

HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
PAIR = "BTC-USD"
VENUES = ("coinbase", "kraken")
MARKET = "simulated"


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def archive(settings: Settings) -> Archive:
    return Archive(settings.archive, MARKET)


@pytest.fixture
def day_us() -> int:
    """The beginning of a day that is over."""
    return now_us() // DAY_US * DAY_US - 2 * DAY_US


def trade(time_us: int, number: int, price: object, size: object = 1, side: str = "buy") -> Print:
    return Print(time_us + 1_000, str(number), Decimal(str(price)), Decimal(str(size)), side, time_us)


def product(venue: str) -> str:
    return next(each.id for each in INSTRUMENTS[PAIR].products if each.venue == venue)


def archived(archive: Archive, venue: str, *prints: Print, samples: tuple[Sample, ...] = ()) -> None:
    """Put one file of each kind into the archive, with an entry a second after the first of what it tells."""
    told_us = min([each.time_us for each in prints] + [each.time_us for each in samples])
    entry, chunk = Entry(told_us // 1000 + 1_000, 0), Chunk(venue, product(venue), 7, samples, prints, MARKET)
    for kind in (Kind.TRADES, Kind.QUOTES):
        rows = Rows(kind)
        rows.add(entry, chunk)
        if len(rows):
            archive.write(Series(kind, venue, PAIR), rows.table(), entry, entry)


def lived(archive: Archive, start_us: int, end_us: int, *venues: str) -> None:
    """Put the spans of connections into the archive, one for each minute."""
    for venue in venues or VENUES:
        rows = Rows(Kind.SPANS)
        for from_us in range(start_us, end_us, 60 * SECOND_US):
            until_us = from_us + 60 * SECOND_US
            rows.add_span(Entry(until_us // 1000, 0), Span(venue, 7, from_us, until_us, (), MARKET))
        archive.write(Series(Kind.SPANS, venue), rows.table(), Entry(start_us // 1000, 0), Entry(end_us // 1000, 0))


def post(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return client.post(path, json={"pair": PAIR, **body})


def due(database: Database) -> None:
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=0))


def worked(client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, job_id: str) -> Any:
    due(database)
    run_due(database, broker, settings)
    return client.get(f"/jobs/{job_id}").json()


def job_of(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def test_a_vwap_of_the_past_is_exact(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive, day_us: int
) -> None:
    """By venue and over all of them: value, points, size, span, and how much of the window was seen."""
    archived(archive, "coinbase", trade(day_us, 1, "100.1", 2))
    archived(archive, "coinbase", trade(day_us + HOUR_US, 2, "100.2", "0.3"))
    archived(archive, "kraken", trade(day_us + 90 * SECOND_US, 1, "99.9", "1.5"), trade(day_us - 1, 2, 1, 1_000))
    lived(archive, day_us, day_us + 2 * HOUR_US, "coinbase")
    lived(archive, day_us, day_us + HOUR_US, "kraken")
    end_us = day_us + 2 * HOUR_US
    job_id = job_of(post(client, "/vwap", start=rfc3339(day_us), end=rfc3339(end_us), venues=list(VENUES)))
    job = worked(client, database, broker, settings, job_id)
    assert job["state"] == "done", job
    [part] = job["result"]["parts"]
    assert part["vwap"] == "100.0289473684210526315789474"
    assert (part["points"], part["size"], part["coverage"], part["incomplete"]) == (3, "3.8", "0.5", True)
    assert (part["from"], part["until"]) == (rfc3339(day_us), rfc3339(day_us + HOUR_US))
    by_venue = {each["venue"]: each for each in part["venues"]}
    assert by_venue["coinbase"]["vwap"] == "100.1130434782608695652173913"
    assert (by_venue["coinbase"]["coverage"], by_venue["coinbase"]["incomplete"]) == ("1", False)
    assert (by_venue["kraken"]["vwap"], by_venue["kraken"]["incomplete"]) == ("99.9", True)
    told = client.get("/events").json()["events"][-1]
    assert (told["type"], told["kind"], told["result"]["values"]) == ("job.done", "vwap", {PAIR: part["vwap"]})


def test_what_is_not_archived_yet_comes_from_the_bus(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive
) -> None:
    """Each trade once, though two connections told of some, and the archivist had written some."""
    writer, at = HistoryWriter(broker), now_us() - 5 * SECOND_US

    def told(token: int, *numbers: int) -> None:
        made = tuple(trade(at + number, number, 100 + number) for number in numbers)
        writer.write({PAIR: Chunk("kraken", product("kraken"), token, (), made, MARKET)}, {}, None, now_us())

    told(7, 1, 2)
    told(8, 2, 3)
    Archivist(broker, archive, 30).turn()
    told(7, 3, 4)
    told(8, 5)
    writer.write({PAIR: Chunk("kraken", product("kraken"), 7, (), (trade(at, 9, 9),), "live")}, {}, None, now_us())
    job_id = job_of(post(client, "/vwap", start=rfc3339(at), end=rfc3339(at + SECOND_US)))
    [part] = worked(client, database, broker, settings, job_id)["result"]["parts"]
    assert (part["points"], part["vwap"]) == (5, "103")


def test_an_average_before_what_the_bus_keeps_comes_from_the_archive(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive
) -> None:
    """The same result as it was from the bus, sizes and spans and all."""
    writer, start = HistoryWriter(broker), now_us() - 12 * SECOND_US
    for venue, price in (("coinbase", 100), ("kraken", 103)):
        prices = (Decimal(price), Decimal(price + 2), None, Decimal(1), Decimal(2))
        chunk = Chunk(venue, product(venue), 7, (Sample(start, *prices),), (trade(start, 1, price, 3),), MARKET)
        writer.write({PAIR: chunk}, {}, Span(venue, 7, start, start + 10 * SECOND_US, (), MARKET), now_us())
    body = {"start": rfc3339(start), "window_s": 10, "min_sources": 2, "method": "mean"}
    Archivist(broker, archive, 30).turn()
    from_bus = worked(client, database, broker, settings, job_of(post(client, "/prices/average", **body)))["result"]
    assert [part["value"] for part in from_bus["parts"]] == ["102.5"]
    broker.flushall()
    again = worked(client, database, broker, settings, job_of(post(client, "/prices/average", **body)))["result"]
    assert again == from_bus


def test_a_range_without_data_is_an_empty_answer_that_says_so(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, day_us: int
) -> None:
    """Not an error: of all three jobs."""
    body = {"start": rfc3339(day_us), "window_s": 60}
    ids = [job_of(post(client, path, **body)) for path in ("/vwap", "/candles/rebuild", "/prices/average")]
    vwap, candles, average = (worked(client, database, broker, settings, job_id) for job_id in ids)
    assert [each["state"] for each in (vwap, candles, average)] == ["done"] * 3
    [part] = vwap["result"]["parts"]
    assert (part["vwap"], part["points"], part["coverage"], part["problem"]) == (None, 0, "0", works.NO_TRADE)
    assert (candles["result"]["candles"], candles["result"]["problem"]) == (0, works.NO_TRADE)
    assert "0 can be used" in average["result"]["parts"][0]["problem"]


def stored(database: Database, venue: str, interval_s: int, start_us: int) -> list[Candle]:
    with database.read() as connection:
        series = CandleSeries(MARKET, venue, PAIR, interval_s)
        return read_candles(connection, series, start_us, start_us + DAY_US, 1_000)


def test_candles_are_rebuilt_from_trades(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive, day_us: int
) -> None:
    """Of each venue and of all, small and larger than an hour; whole ones, and those where trades may be missing."""
    minute = 60 * SECOND_US
    archived(archive, "coinbase", trade(day_us, 1, 100, 2), trade(day_us + 1, 2, 98, 1, "sell"))
    archived(archive, "kraken", trade(day_us + 30 * SECOND_US, 1, 103, "0.5"))
    archived(archive, "kraken", trade(day_us + 2 * HOUR_US, 2, 90))
    archived(archive, "coinbase", trade(day_us + 3 * HOUR_US + minute, 3, 101))
    lived(archive, day_us, day_us + 4 * HOUR_US)
    body = {"start": rfc3339(day_us), "end": rfc3339(day_us + 4 * HOUR_US), "venues": None}
    job_id = job_of(post(client, "/candles/rebuild", intervals=["1m", "1h", "4h"], **body))
    result = worked(client, database, broker, settings, job_id)["result"]
    [first, *others] = stored(database, EVERY_VENUE, 60, day_us)
    assert [first.open, first.high, first.low, first.close] == [Decimal(each) for each in (100, 103, 98, 103)]
    assert first.open_time_us == day_us
    assert (first.volume, first.quote_volume, first.taker_buy_volume) == (
        Decimal("3.5"),
        Decimal("349.5"),
        Decimal("2.5"),
    )
    assert (first.trades, first.incomplete, first.revision, first.market) == (3, True, 0, MARKET)
    assert [(each.open_time_us - day_us) // minute for each in others] == [120, 181]
    [whole] = stored(database, EVERY_VENUE, 14_400, day_us)
    assert (whole.open, whole.high, whole.low, whole.close) == tuple(Decimal(each) for each in (100, 103, 90, 101))
    assert (whole.trades, whole.volume, whole.quote_volume) == (5, Decimal("5.5"), Decimal("540.5"))
    # The other venues of the pair have no spans: trades of "all" may be missing, and of these two none.
    [coinbase] = stored(database, "coinbase", 14_400, day_us)
    assert (coinbase.trades, coinbase.incomplete, coinbase.taker_buy_volume) == (3, False, Decimal(3))
    assert result["candles"] == result["written"] == len(stored_everywhere(database, day_us))


def stored_everywhere(database: Database, day_us: int) -> list[Candle]:
    return [
        candle
        for venue in (*VENUES, EVERY_VENUE)
        for interval_s in (1, 60, 300, 900, 3_600, 14_400, 86_400)
        for candle in stored(database, venue, interval_s, day_us)
    ]


def test_rebuilt_candles_are_those_that_are_made_as_trades_come(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive, day_us: int
) -> None:
    """Of every interval, at each venue and over all: the same as of models.domain.candles, equal times and all."""
    chance = random.Random(5)
    listed = sorted(each.venue for each in INSTRUMENTS[PAIR].products)
    makers = {
        venue: CandleMaker(venue, PAIR, MARKET, MakerState(day_us), late_max_us=DAY_US)
        for venue in (*VENUES, EVERY_VENUE)
    }
    at, made = day_us, list[Candle]()
    for number in range(300):
        # Some at once, and now and then nothing for a long time.
        at += chance.choice((0, 0, 1, 250_000, 2 * SECOND_US, 70 * SECOND_US, 500 * SECOND_US))
        venue, price = chance.choice(VENUES), Decimal(chance.randrange(1, 10**6)).scaleb(-3)
        side, size = chance.choice(("buy", "sell")), Decimal(chance.randrange(1, 10**4)).scaleb(-4)
        rows, entry = Rows(Kind.TRADES), Entry(at // 1000 + 1_000, number)
        told = Print(at + 1_000, str(number), price, size, side, at)
        rows.add(entry, Chunk(venue, product(venue), 7, (), (told,), MARKET))
        archive.write(Series(Kind.TRADES, venue, PAIR), rows.table(), entry, entry)
        for each in (venue, EVERY_VENUE):
            makers[each].trade(price, size, side, at)
            made += makers[each].advance(at)
    assert at < day_us + DAY_US
    for clock_us in range(at, day_us + DAY_US + 120 * SECOND_US, 60 * SECOND_US):
        for maker in makers.values():
            made += maker.advance(clock_us)
    lived(archive, day_us, day_us + DAY_US, *listed)
    job_id = job_of(post(client, "/candles/rebuild", start=rfc3339(day_us), end=rfc3339(day_us + DAY_US)))
    assert worked(client, database, broker, settings, job_id)["state"] == "done"
    expected = sorted(filter(lambda each: each.trades and each.open_time_us < day_us + DAY_US, made), key=_series)
    assert sorted(stored_everywhere(database, day_us), key=_series) == expected
    assert {each.interval_s for each in expected} == set(INTERVALS_S.values())


def _series(candle: Candle) -> tuple[Any, ...]:
    return candle.venue, candle.interval_s, candle.open_time_us


def test_a_rebuild_writes_what_differs_as_the_next_revision(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive, day_us: int
) -> None:
    """Again it writes nothing; one in which trades may be missing never takes the place of a whole one."""
    archived(archive, "kraken", trade(day_us, 1, 100))
    lived(archive, day_us, day_us + HOUR_US, "kraken")
    body = {"start": rfc3339(day_us), "window_s": 60, "interval": "1m", "venues": ["kraken"]}

    def rebuilt() -> list[tuple[int, Decimal, bool]]:
        worked(client, database, broker, settings, job_of(post(client, "/candles/rebuild", **body)))
        return [(each.revision, each.close, each.incomplete) for each in stored(database, "kraken", 60, day_us)]

    assert rebuilt() == rebuilt() == [(0, Decimal(100), False)]
    archived(archive, "kraken", trade(day_us + 9, 2, 101))
    assert rebuilt() == rebuilt() == [(1, Decimal(101), False)]
    [whole] = stored(database, "kraken", 60, day_us)
    archive.delete(archive.of_day(Series(Kind.SPANS, "kraken"), archive.days(Series(Kind.SPANS, "kraken"))[0]))
    archived(archive, "kraken", trade(day_us + 10, 3, 102))
    assert rebuilt() == [(1, Decimal(101), False)]
    assert upsert_candles(database, [whole]) >= 0


@pytest.mark.parametrize("path", ["/vwap", "/candles/rebuild"])
def test_a_long_job_is_worked_in_turns(
    client: httpx.Client,
    database: Database,
    broker: redis.Redis,
    settings: Settings,
    archive: Archive,
    day_us: int,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    """Each far below the task's time limit, more of them than attempts may fail; the result is that of one turn."""
    for hour in range(24):
        archived(archive, "kraken", trade(day_us + hour * HOUR_US, hour, 100 + hour % 5, 1 + hour))
    lived(archive, day_us, day_us + DAY_US, "kraken")
    body = {"start": rfc3339(day_us), "end": rfc3339(day_us + DAY_US), "venues": ["kraken"]}
    at_once = worked(client, database, broker, settings, job_of(post(client, path, **body)))["result"]
    candles = stored_everywhere(database, day_us)
    with database.write() as connection:
        connection.exec_driver_sql("DELETE FROM candles")
    monkeypatch.setattr(works, "TURN_S", 0.0)
    job_id = job_of(post(client, path, **body))
    due(database)
    turns = []
    for _ in range(24):
        claimed = claim_due(database, tuple(WORKS), "w", LEASE_US)
        assert claimed is not None
        _work(database, broker, settings, claimed)
        job = client.get(f"/jobs/{job_id}").json()
        turns.append((job["state"], job["progress"]["done"]))
    assert turns[:23] == [("queued", done) for done in range(1, 24)]
    assert (turns[23], job["progress"]["turns"]) == (("done", 23), 23)
    assert job["result"] == at_once
    assert stored_everywhere(database, day_us) == candles
    told = [each["progress"] for each in client.get("/events").json()["events"] if each["type"] == "job.progress"]
    assert told[-1] == {"done": 23, "parts": 24, "turns": 23}


def test_who_takes_over_goes_on_from_what_was_saved(
    client: httpx.Client,
    database: Database,
    broker: redis.Redis,
    settings: Settings,
    archive: Archive,
    day_us: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that was killed between two hours has left its sums; no trade counts twice."""
    for hour in range(6):
        archived(archive, "kraken", trade(day_us + hour * HOUR_US, hour, 100, 1))
    body = {"start": rfc3339(day_us), "end": rfc3339(day_us + 6 * HOUR_US), "venues": ["kraken"]}
    job_id = job_of(post(client, "/vwap", **body))
    monkeypatch.setattr(works, "REPORT_S", 0.0)
    take, hours = works.vwap_hour, []

    def dying(window: works.Window) -> works.Take:
        inner = take(window)

        def hour(*arguments: Any) -> None:
            hours.append(arguments[3])
            if len(hours) == 4:
                raise KeyboardInterrupt
            inner(*arguments)

        return hour

    monkeypatch.setattr("workers.archive.vwap_hour", dying)
    due(database)
    with pytest.raises(KeyboardInterrupt):
        run_due(database, broker, settings)
    with database.write() as connection:
        connection.execute(jobs.update().values(lease_until_us=0))
    job = worked(client, database, broker, settings, job_id)
    assert job["result"]["parts"][0]["points"] == 6
    assert hours == [day_us + hour * HOUR_US for hour in (0, 1, 2, 3, 3, 4, 5)]


def test_a_job_is_cancelled_while_it_waits_or_is_worked(client: httpx.Client, database: Database, day_us: int) -> None:
    """It fails with "cancelled", once; whoever works it sees so at its next part, and nothing is overwritten."""
    body = {"start": rfc3339(day_us), "window_s": 60}
    waiting, working = (job_of(post(client, "/vwap", **body)) for _ in range(2))
    answer = client.delete(f"/jobs/{waiting}")
    assert (answer.status_code, answer.json()["job"]["state"], answer.json()["job"]["error"]) == (
        200,
        "failed",
        "cancelled",
    )
    due(database)
    with database.write() as connection:
        connection.execute(jobs.update().where(jobs.c.id == waiting).values(due_us=0))
    claimed = claim_due(database, tuple(WORKS), "w", LEASE_US)
    assert claimed is not None
    assert claimed.id == working
    assert client.delete(f"/jobs/{working}").status_code == 200
    with pytest.raises(ClaimLostError):
        report(database, claimed, {"done": 1, "parts": 2}, LEASE_US)
    assert client.get(f"/jobs/{working}").json()["error"] == "cancelled"
    again = client.delete(f"/jobs/{working}")
    assert (again.status_code, again.json()["state"]) == (409, "failed")
    told = [(each["type"], each["job_id"]) for each in client.get("/events").json()["events"]]
    assert told == [("job.failed", waiting), ("job.failed", working)]


def test_only_ones_own_jobs_that_carry_no_order_are_cancelled(client: httpx.Client) -> None:
    """An order has a DELETE of its own, whose end the book decides."""
    assert client.delete("/jobs/nobody").status_code == 404
    answer = client.post("/order/limit", json={"symbol": "LTCBTC", "order_size": 1, "price": 1})
    refused = client.delete(f"/jobs/{answer.json()['job_id']}")
    assert (refused.status_code, "DELETE /orders" in refused.json()["detail"]) == (409, True)


def test_a_broken_file_is_named_in_the_result(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, archive: Archive, day_us: int
) -> None:
    """The others count."""
    archived(archive, "kraken", trade(day_us, 1, 100))
    archived(archive, "coinbase", trade(day_us, 1, 102))
    [broken] = Path(settings.archive).rglob("venue=kraken/**/*.parquet")
    broken.write_bytes(b"PAR1 and no more")
    job_id = job_of(post(client, "/vwap", start=rfc3339(day_us), window_s=60))
    result = worked(client, database, broker, settings, job_id)["result"]
    assert (result["parts"][0]["vwap"], result["files_broken"]) == ("102", [str(broken)])


PAST = "2026-01-01T00:00:00Z"


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"pair": "BTCUSB", "start": PAST, "window_s": 60}, "pair", "did you mean BTC-USD"),
    ({"pairs": [PAIR], "start": PAST, "window_s": 60}, "pair", "either"),
    ({"venues": ["binance"], "start": PAST, "window_s": 60}, "venues", "has no price of BTC-USD"),
    ({"window_s": 60}, "start", "is missing"),
    ({"start": "now", "window_s": 60}, "start", "is no time"),
    ({"start": PAST}, "end", "either `end` or `window_s`"),
    ({"start": PAST, "end": PAST, "window_s": 1}, "end", "either `end` or `window_s`"),
    ({"start": PAST, "end": PAST}, "start", "is not before the end"),
    ({"start": PAST, "end": "2025-12-31T00:00:00Z"}, "start", "is not before the end"),
    ({"start": PAST, "end": "2999-01-01T00:00:00Z"}, "end", "in the future"),
    ({"start": PAST, "window_s": 0}, "window_s", "out of range"),
    ({"start": PAST, "window_s": -1}, "window_s", "out of range"),
    ({"start": "2020-01-01T00:00:00Z", "end": PAST}, "start", "366 days"),
    ({"start": "1969-01-01T00:00:00Z", "window_s": 60}, "start", "before 1970"),
    ({"start": PAST, "window_s": 60, "colour": "red"}, "colour", "is unknown"),
]


def test_bad_input_names_its_field(client: httpx.Client) -> None:
    """As problem+json, with what would be right."""
    for path in ("/vwap", "/candles/rebuild"):
        for body, field, says in BAD:
            answer = post(client, path, **body)
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), body
            assert says in answer.json()["detail"]


def test_an_unknown_interval_and_a_candle_that_has_not_ended_are_refused(client: httpx.Client) -> None:
    """The first names those that there are."""
    body = {"start": PAST, "window_s": 60}
    for interval in ("2m", 60):
        refused = post(client, "/candles/rebuild", interval=interval, **body)
        assert (refused.status_code, "1s, 1m, 5m" in refused.json()["detail"]) == (422, True)
    young = {"start": rfc3339(now_us() - 2 * SECOND_US), "window_s": 1}
    refused = post(client, "/candles/rebuild", interval="1d", **young)
    assert (refused.status_code, "has ended yet" in refused.json()["detail"]) == (422, True)


def test_the_same_key_is_the_same_job(client: httpx.Client) -> None:
    """Also where one more candle has ended meanwhile."""
    body = {"pair": PAIR, "start": rfc3339(now_us() - 60 * SECOND_US), "window_s": 59, "interval": "1s"}
    first, again = (
        client.post("/candles/rebuild", json=body, headers={"Idempotency-Key": "k"}).json()["job_id"] for _ in range(2)
    )
    assert first == again
