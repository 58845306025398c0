"""The venues' own lists of instruments, fetched where the market is live."""

import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import structlog

from exchanges.registry import LISTS
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS, Listed
from models.domain.quotes import Market
from models.settings import Settings
from models.store.database import Database
from models.store.listings import replace_listings

TIMEOUT_S = 10.0
BYTES_MAX = 50_000_000
PIECE_BYTES = 1 << 16

log = structlog.get_logger()

Fetch = Callable[[str], bytes]


class ListError(CrossfillError):
    """A venue's list cannot be had or used; the sentence says why."""


class RefusedError(ListError):
    """A venue answered with an error. `retry_after` is that header, where it came with it."""

    def __init__(self, status: int, reason: str, retry_after: str | None) -> None:
        super().__init__(f"the answer is {status} {reason}")
        self.status, self.retry_after = status, retry_after


def lists_of(settings: Settings) -> dict[str, str]:
    """Return the addresses of the lists by venue: none where the market is not live.

    A venue that is read at another address than its own may be another one, so its list is not asked for.
    """
    if settings.market is not Market.LIVE:
        return {}
    names = [name for name in settings.venue_names if name in LISTS and name not in settings.venue_urls]
    return {name: LISTS[name][0] for name in names}


def fetch(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return what a GET answers with.

    Raises OSError, HTTPException, RefusedError for an error, ListError beyond the limits of time and size.
    """
    until = time.monotonic() + timeout_s
    request = Request(url, headers={"User-Agent": "crossfill"})  # noqa: S310 -- the registry's addresses
    pieces, size = [], 0
    try:
        opened = urlopen(request, timeout=timeout_s)  # noqa: S310 -- likewise
    except HTTPError as error:
        error.close()  # it holds the connection
        raise RefusedError(error.code, error.reason, error.headers.get("Retry-After")) from error
    with opened as answer:
        while piece := answer.read1(PIECE_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > BYTES_MAX:
                raise ListError(f"it is larger than {BYTES_MAX // 1_000_000} MB")
            if time.monotonic() > until:
                raise ListError(f"it takes longer than {timeout_s:g} s")
        if answer.length:
            raise ListError(f"it ends {answer.length} bytes too early")
    return b"".join(pieces)


def refresh(database: Database, urls: Mapping[str, str], fetch: Fetch = fetch) -> dict[str, str]:
    """Fetch and store the lists at these addresses by venue; return why one was not taken, by venue.

    All are asked at once and given TIMEOUT_S together. A venue that fails or answers nonsense keeps its
    former list.
    """
    answers: dict[str, bytes | Exception] = {}

    def ask(venue: str, url: str) -> None:
        try:
            answers[venue] = fetch(url)
        except (OSError, HTTPException, ValueError, CrossfillError) as error:
            answers[venue] = error

    asking = [threading.Thread(target=ask, args=each, name="list", daemon=True) for each in urls.items()]
    until = time.monotonic() + TIMEOUT_S
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(max(0.0, until - time.monotonic()))
    failures = {}
    for venue in urls:
        answer = answers.get(venue, ListError(f"no answer within {TIMEOUT_S:g} s"))
        try:
            _take(database, venue, answer)
        except Exception as error:  # noqa: BLE001 -- whatever one venue says, the others' lists are taken
            failures[venue] = _sentence(error)
            log.warning("the venue's list is not taken", venue=venue, error=failures[venue])
    return failures


def _take(database: Database, venue: str, answer: bytes | Exception) -> None:
    if isinstance(answer, Exception):
        raise answer
    replace_listings(database, venue, listed_by(venue, answer))


def _sentence(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0][:200]


def listed_by(venue: str, body: bytes) -> list[Listed]:
    """Return what a venue's list says of our pairs.

    Raises ListError where nothing of that can be used, msgspec.MsgspecError where it is no list.
    """
    ids = INSTRUMENTS.products_of(venue)
    pairs = {instrument.symbol for instrument in INSTRUMENTS}
    ours = [each for each in LISTS[venue][1](body) if each.product.id in ids or each.symbol in pairs]
    if not ours:
        raise ListError("none of our pairs is in it")
    if not any(venue in instrument.venues for instrument in INSTRUMENTS.refreshed(ours)):
        raise ListError("none of our pairs trades by it")
    return ours
