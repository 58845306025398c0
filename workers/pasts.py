"""The venues' own candles of the past, fetched for the averages that want more closes than we have.

A turn lasts a moment, for the worker is one for all jobs, and asks venues one after the other, each no more often than
it bears. What was asked for is in the database, so that a restart goes on, and nothing is asked for twice.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import urlsplit

import redis
import structlog
from sqlalchemy import Connection

from exchanges.pasts import AnswerError, Past, read_past
from exchanges.registry import PASTS
from models.bus.client import failures
from models.bus.names import past_key
from models.domain.candles import EVERY_VENUE, INTERVALS_S
from models.domain.instruments import Instruments
from models.domain.pasts import FETCHED_MAX, PastCandle, followed, known_closes, next_span
from models.domain.quotes import Market
from models.settings import Settings
from models.store.candles import Series
from models.store.database import Database, now_us
from models.store.listings import instruments_at
from models.store.pasts import PastRow, closes_of, put_pasts, read_pasts
from models.store.pasts import read_past as stored_past
from models.store.strategies import current_strategies
from workers.listings import ListError, RefusedError, fetch

TURN_S = 0.5
TIMEOUT_S = 4.0  # of a request: no job is worked meanwhile
CLAIM_MS = 15_000  # of a venue, longer than any request to it: whoever is killed with it holds nobody up for more
SETTLED_US = 15_000_000  # so long after its end a candle is closed everywhere, and ours is stored
LOOK_US = 300_000_000  # a series is looked at so often at most
FIRST_PAUSE_S, PAUSE_MAX_S, ASKED_MAX_S = 5.0, 3_600.0, 86_400.0
CROWDED_STATUSES = frozenset({403, 418, 429, 451})  # what holds for the venue and not for one product alone
SERVER_ERROR = 500
PROBLEM_MAX = 200  # characters

_NAMES = {interval_s: name for name, interval_s in INTERVALS_S.items()}

log = structlog.get_logger()

Fetch = Callable[[str, float], bytes]


def addresses_of(settings: Settings) -> dict[str, str]:
    """Return where venues are asked for their past: nowhere in a replay, for a recording has none.

    The simulator answers where it is read. A venue of a live market that is read at another address than its own may be
    another one, and is not asked.
    """
    if settings.market is Market.REPLAY:
        return {}
    names = [name for name in settings.venue_names if name in PASTS]
    if settings.market is Market.LIVE:
        return {name: PASTS[name].own_url for name in names if name not in settings.venue_urls}
    urls = {name: urlsplit(settings.venue_urls[name]) for name in names if name in settings.venue_urls}
    return {name: f"{'https' if url.scheme == 'wss' else 'http'}://{url.netloc}" for name, url in urls.items()}


def pause_s(attempts: int, asked_s: float = 0) -> float:
    """Return for how long a venue is left alone after so many failures; `asked_s` is what it asked for."""
    doubled = FIRST_PAUSE_S * float(1 << min(attempts - 1, 20))
    return max(min(doubled, PAUSE_MAX_S), min(asked_s, ASKED_MAX_S))


def asked_s(retry_after: str | None, now_s: float) -> float:
    """Return the seconds that a Retry-After asks for, which is a number or a date; 0 where it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0


class _Turn:
    """One turn over the series that are followed, with what is known of their pasts."""

    def __init__(
        self,
        store: Database,
        client: redis.Redis,
        known: Instruments,
        addresses: Mapping[str, str],
        rows: dict[Series, PastRow],
        now_us: int,
        fetch: Fetch,
        *,
        pausing: bool,
    ) -> None:
        self._store, self._client, self._fetch = store, client, fetch
        self._known, self._addresses = known, addresses
        self._rows, self._now_us = rows, now_us
        self._pausing = pausing
        self._busy: set[str] = set()  # venues that may not be asked again in this turn
        self.asked = 0

    def look(self, series: Series, wanted: int) -> None:
        """Look at a series if that is due: ask its venue for a page of what is lacking, or count what is known."""
        if not self._is_due(series, wanted):
            return
        row = replace(self._rows[series], wanted=wanted)
        interval_us = series.interval_us
        end_us = (self._now_us - SETTLED_US) // interval_us * interval_us
        with self._store.read() as connection:
            closes = closes_of(connection, series, end_us, wanted)
        past = PASTS.get(series.venue) if series.venue in self._addresses else None
        problem = None
        if past is not None and series.interval_s in past.names:
            lacking = [time_us for time_us in closes.lacking if time_us >= end_us - FETCHED_MAX * interval_us]
            span = next_span(lacking, row.from_us, row.until_us, interval_us)
            if span is not None:
                self._ask(past, row, *span)
                return
        elif series.venue != EVERY_VENUE:
            problem = f"{series.venue} is not asked for candles of {_NAMES[series.interval_s]}"
        self._count(row, known_closes(closes.candles), end_us, problem)

    def _is_due(self, series: Series, wanted: int) -> bool:
        row = self._rows[series]
        if series.venue in self._busy or (row.due_us > self._now_us and (row.attempts or row.wanted >= wanted)):
            return False
        # All venues together are counted when there is enough, or when each of them has been.
        others = (each for each in self._rows.values() if each.series._replace(venue=EVERY_VENUE) == series)
        return (
            series.venue != EVERY_VENUE
            or row.closes < wanted
            or all(each.due_us > self._now_us for each in others if each is not row)
        )

    def _count(self, row: PastRow, closes: int, end_us: int, problem: str | None) -> None:
        series = row.series
        due_us = max(end_us + series.interval_us + SETTLED_US, self._now_us + LOOK_US)
        changed_us = row.changed_us if closes == row.closes else self._now_us
        self._put(
            [replace(row, closes=closes, due_us=due_us, attempts=0, problem=problem, changed_us=changed_us)],
        )
        together = series._replace(venue=EVERY_VENUE)
        if closes != row.closes and series != together and together in self._rows:
            self._put([replace(self._rows[together], due_us=0)])

    def _ask(self, past: Past, row: PastRow, start_us: int, end_us: int) -> None:
        """Ask for the first page of a span, and store what comes."""
        series = row.series
        if not past.newest_only:
            end_us = min(end_us, start_us + past.page * series.interval_us)
        [product] = [each for each in self._known[series.symbol].books if each.venue == series.venue]
        with failures():
            if not self._client.set(past_key(series.venue), "", nx=True, px=CLAIM_MS):
                self._busy.add(series.venue)
                return
        try:
            with self._store.read() as connection:
                newest = stored_past(connection, series)
            if newest is not None and (newest.from_us, newest.until_us) != (row.from_us, row.until_us):
                self._rows[series] = newest  # another worker has asked for it meanwhile
                return
            self.asked += 1
            path = past.request(product.id, series.interval_s, start_us, end_us, self._now_us)
            body = self._fetch(self._addresses[series.venue] + path, TIMEOUT_S)
            told = read_past(past, body, series.interval_s, start_us, end_us)
        except (OSError, HTTPException, ListError, AnswerError) as error:
            self._put_off(row, error)
            return
        finally:
            with failures():
                self._client.pexpire(past_key(series.venue), int(past.pause_s * 1_000) if self._pausing else 0)
        # What lies between two spans is ours.
        from_us = row.from_us if row.until_us and start_us >= row.until_us else start_us
        # It is due at once: for the next page, or to be counted.
        self._put([replace(row, from_us=from_us, until_us=end_us, due_us=0, attempts=0, problem=None)], told)

    def _put_off(self, row: PastRow, error: Exception) -> None:
        """Leave a product alone for a while, or its venue where it is not the product's fault."""
        whole = not isinstance(error, ListError | AnswerError) or (isinstance(error, AnswerError) and error.crowded)
        longer_s = 0.0
        if isinstance(error, RefusedError):
            whole = error.status in CROWDED_STATUSES or error.status >= SERVER_ERROR
            longer_s = asked_s(error.retry_after, self._now_us / 1e6)
        attempts, problem = row.attempts + 1, (str(error) or repr(error)).splitlines()[0][:PROBLEM_MAX]
        wait_s = pause_s(attempts, longer_s)
        venue, due_us = row.series.venue, self._now_us + int(wait_s * 1e6)
        if whole:
            self._busy.add(venue)
        others = (each for each in self._rows.values() if whole and each.series.venue == venue)
        self._put(
            [
                replace(each, due_us=max(due_us, each.due_us), attempts=attempts, problem=problem)
                for each in {each.series: each for each in (*others, row)}.values()
            ]
        )
        log.warning("the past is not told", venue=venue, symbol=row.series.symbol, error=problem, again_s=wait_s)

    def _put(self, rows: Sequence[PastRow], told: Sequence[PastCandle] = ()) -> None:
        put_pasts(self._store, rows, told)
        self._rows.update({row.series: row for row in rows})


def fetch_due(
    store: Database,
    client: redis.Redis,
    settings: Settings,
    fetch: Fetch = fetch,
    clock: Callable[[Connection], int] = now_us,
) -> int:
    """Look at series whose look is due, and ask their venues for what is lacking; return how many requests were made.

    It ends after TURN_S, or when nothing is due. Venues that fail, and products that they refuse, are left alone for
    longer each time. Raises StoreUnavailableError, BusUnavailableError.
    """
    addresses = addresses_of(settings)
    if not addresses:
        return 0
    known, market = instruments_at(store, settings.market), settings.market.value
    with store.read() as connection:
        strategies = [row.strategy for row in current_strategies(connection) if row.stopped_us is None]
        rows, time_us = read_pasts(connection, market), clock(connection)
    wanted = {Series(market, *each): count for each, count in followed(strategies, known, settings.venue_names).items()}
    # What was never looked at is among them: a venue that fails puts all of its series off.
    mine = {series: rows.get(series, PastRow(series=series)) for series in wanted}
    # The simulator may be asked as often as we like.
    pausing = settings.market is Market.LIVE
    turn = _Turn(store, client, known, addresses, mine, time_us, fetch, pausing=pausing)
    until = time.monotonic() + TURN_S
    for series, count in wanted.items():
        if time.monotonic() >= until:
            break
        turn.look(series, count)
    return turn.asked
