"""What collectors of all six venues do when their venues, or the network between, fail them.

A failure names the venues that it is of.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.bus.client import connect
from models.bus.latest import LatestPrice
from models.bus.names import venue_lease_key
from models.domain.history import Chunk, Span, window_mean
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote
from models.store.database import Database
from models.store.schema import fix_shards
from simulator import htx, market
from simulator.registry import WIRES
from tests.integration.workers.venues import (
    BOOKS,
    LIVELY,
    SILENCE_S,
    VENUES,
    Bus,
    Run,
    collecting,
    simulated,
)
from tests.services import ROOT
from workers.connection import clock_us
from workers.history import History

FIRST = dict.fromkeys(VENUES, 1)
NOTICES = tuple(wire.name for wire in WIRES.values() if wire.notice is not None)
CLOSERS = tuple(venue for venue in VENUES if venue not in NOTICES)
# A product of each venue that is refused: the last of its books.
GONE = {venue: books[-1] for venue, books in BOOKS.items()}
# HTX does not say whether its ids rise by one, so nobody can tell that a trade is missing.
COUNTING = tuple(venue for venue in VENUES if venue != "htx")

# How the frames begin from which a book is kept.
BOOK_FRAMES = {"coinbase": '{"type":"l2update"', "kraken": '{"channel":"book"'}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Venues are lively, and HTX pings each second instead of each five."""
    monkeypatch.setattr(market, "HABITS", dict.fromkeys(VENUES, LIVELY))
    monkeypatch.setattr(htx, "PING_MS", 500)


@pytest.fixture
def run(redis_url: str) -> Iterator[Run]:
    """Six collectors that have heard of every book."""
    with collecting(redis_url) as running:
        running.settle()
        yield running


def spans(run: Run, venue: str, token: int) -> list[Span]:
    return [span for span in run.histories[venue].spans if span.token == token]


def hole_us(run: Run, venue: str, token: int) -> int:
    """Return the time between the connection of a token and the one that came after it."""
    run.bus.until(lambda name: any(span.token > token for span in run.histories[name].spans), [venue])
    after = min(span.from_us for span in run.histories[venue].spans if span.token > token)
    return after - max(span.until_us for span in spans(run, venue, token))


def costs_the_book(venue: str, frame: str) -> bool:
    """Say whether half of a venue's frame leaves a kept book in doubt: Coinbase's does not tell its type any more."""
    return venue == "coinbase" or (venue in BOOK_FRAMES and frame.startswith(BOOK_FRAMES[venue]))


@pytest.mark.parametrize(("fault", "words"), [("drop", "lost"), ("reset", "reset by peer")])
def test_a_cut_connection_is_made_anew(fault: str, words: str, run: Run) -> None:
    """At once and under a higher token, where it was cut and nowhere else; the history has a hole."""
    cut, others = VENUES[::2], VENUES[1::2]
    since_us = run.inject(fault, cut)
    run.again(since_us, cut)
    run.go_on(since_us, dict.fromkeys(cut, 2) | dict.fromkeys(others, 1))
    since_us = run.inject(fault, others)
    run.again(since_us, others)
    run.go_on(since_us, dict.fromkeys(VENUES, 2))
    for venue in VENUES:
        [broke] = run.warnings(venue)
        assert broke["event"] == "the connection broke", venue
        assert words in broke["error"], venue
        run.bus.until(lambda name: run.state(name).reconnects == 1, [venue])
        assert hole_us(run, venue, 1) > 0, venue


def test_a_half_open_connection_is_given_up(run: Run) -> None:
    """Silence ends it, and its marks; the history does not cover the silence."""
    since_us = run.inject("stall", seconds=3.5)
    run.again(since_us)
    for venue in VENUES:
        assert run.said(venue, "the venue is silent"), venue
        silence_us = SILENCE_S[venue] * 1e6
        assert hole_us(run, venue, 1) > silence_us, venue
        last = max(mark.marked_time_us for mark in run.bus.marks(venue, 1))
        heard = max(quote.received_time_us for quote in run.bus.quotes(venue, 1))
        assert last < heard + silence_us + 0.5e6, venue


def test_a_mute_venue_is_connected_to_until_it_answers(redis_url: str) -> None:
    """It takes connections and pings and says nothing: a subscription that it never answered is made again."""
    with collecting(redis_url, first_message_s=1) as run:
        run.settle()
        since_us = run.inject("mute", seconds=3.2)
        run.again(since_us)
    for venue in VENUES:
        assert run.said(venue, "the venue is silent"), venue
        assert run.said(venue, "the venue has not answered the subscription"), venue
        # On a busy machine the connection that fell mute may be a later one than the first.
        tokens = sorted({span.token for span in run.histories[venue].spans})
        assert max(hole_us(run, venue, token) for token in tokens[:-1]) > 1e6, venue


def test_candles_of_a_second_connection_come_again(redis_url: str) -> None:
    """OKX's connection for them, too, is made again where its subscription was not answered."""
    with collecting(redis_url, ["okx"], companions=True, first_message_s=0.4) as run:
        candles = run.histories["okx"].candles
        run.bus.until(lambda _venue: candles, ["okx"])
        until_us = run.inject("mute", ["okx"], seconds=4) + 4_000_000
        run.bus.until(
            lambda _venue: (
                {candle.product_id for candle in list(candles) if candle.received_time_us > until_us}
                == set(BOOKS["okx"])
            ),
            ["okx"],
            limit_s=60,
            said=run.story,
        )
        assert run.said("okx", "the venue has not answered the subscription to candles")


def test_half_a_frame_costs_no_more_than_what_it_may_have_said(run: Run) -> None:
    """It is logged; a connection is replaced only where a kept book may miss a part."""
    since_us = run.inject("garbage")
    run.bus.until(lambda venue: run.said(venue, "a frame was not understood"), said=run.story)
    tokens = {}
    for venue in VENUES:
        [complaint] = run.said(venue, "a frame was not understood")
        tokens[venue] = 2 if costs_the_book(venue, complaint["frame"]) else 1
    assert tokens["coinbase"] == 2
    run.bus.until(lambda venue: run.bus.token(venue) == tokens[venue], said=run.story)
    run.go_on(max(since_us, clock_us()), tokens)
    for venue in (venue for venue, token in tokens.items() if token == 2):
        run.bus.until(lambda name: run.state(name).gaps == 1, [venue])
        assert hole_us(run, venue, 1) > 0, venue


def test_a_channel_that_nobody_asked_for_is_said_and_disturbs_nothing(run: Run) -> None:
    """Every connection stays."""
    since_us = run.inject("novelty")
    run.bus.until(lambda venue: run.said(venue, "a frame was not understood"), said=run.story)
    run.go_on(max(since_us, clock_us()), FIRST)
    for venue in VENUES:
        [complaint] = run.warnings(venue)
        assert "novelty" in complaint["frame"], venue
        assert run.state(venue).gaps == 0, venue


def test_a_renamed_field_costs_no_more_than_what_it_may_have_said(run: Run) -> None:
    """Where a book is kept, and only for a frame of the book, the connection is replaced."""

    def doubtful(venue: str) -> list[Any]:
        complaints = run.said(venue, "a frame was not understood")
        return [each for each in complaints if each["frame"].startswith(BOOK_FRAMES.get(venue, "{"))]

    # It may befall a frame without that field, or one of another channel.
    deadline = time.monotonic() + 60
    since_us = 0
    while waiting := [venue for venue in VENUES if not doubtful(venue)]:
        assert time.monotonic() < deadline, waiting
        since_us = run.inject("rename", waiting)
        run.bus.until(lambda venue: not run.simulated.venues[venue].faults._left["rename"], waiting)
        run.bus.spell(0.3)
    run.bus.until(lambda venue: run.speaks(venue, since_us + 300_000), said=run.story)
    for venue in VENUES:
        restarts = run.said(venue, "it may have been a part of the book: starting again from a snapshot")
        assert len(restarts) == (len(doubtful(venue)) if venue in BOOK_FRAMES else 0), venue
        assert (run.bus.token(venue) > 1) == (venue in BOOK_FRAMES), venue


def test_a_trade_that_did_not_come_is_said(run: Run) -> None:
    """In the log, the collector's state and the history; Coinbase's book begins anew with it."""
    since_us = run.inject("gap")
    run.bus.until(lambda venue: run.state(venue).gaps == 1, COUNTING, said=run.story)
    run.bus.until(lambda venue: run.bus.token(venue) == 2, ["coinbase"])
    run.go_on(max(since_us, clock_us()), FIRST | {"coinbase": 2})
    assert run.warnings("htx") == []
    for venue in COUNTING:
        [missed] = run.said(venue, "something was missed")
        assert missed["trades"] == 1, venue
        run.bus.until(lambda name: any(span.gaps for span in spans(run, name, 1)), [venue])
        gaps = [span.gaps for span in spans(run, venue, 1) if span.gaps]
        assert gaps == [(missed["product"],)], venue


def test_a_clock_that_is_ahead_disturbs_nothing(run: Run) -> None:
    """Nor one that goes back: what comes has our times, and goes on."""
    since_us = run.inject("skew", seconds=600, delay_s=60)

    def ahead(venue: str) -> bool:
        return any(
            not hasattr(item, "marked_time_us")
            and item.exchange_time_us is not None
            and item.exchange_time_us > item.received_time_us + 30e6
            for item in run.bus.items[venue]
        )

    run.bus.until(ahead)
    run.go_on(since_us, FIRST)
    over_us = run.inject("clear")
    # All of this is before its clock is there again.
    run.bus.until(lambda venue: run.speaks(venue, over_us), said=run.story)
    run.bus.until(
        lambda venue: any(each.received_time_us > over_us and not each.before for each in run.bus.trades(venue, 1)),
        said=run.story,
    )
    assert clock_us() < since_us + 60e6
    run.go_on(clock_us(), FIRST)
    for venue in VENUES:
        assert run.warnings(venue) == [], venue
        assert run.state(venue).gaps == 0, venue
        assert max(item.received_time_us for item in run.bus.quotes(venue)) <= clock_us(), venue


def test_a_refused_product_is_named_and_the_others_speak(redis_url: str) -> None:
    """In the log where the venue refuses it, and among the silent streams in each case."""
    with collecting(redis_url, first_message_s=1) as run:
        run.settle()
        refuse(run)


def refuse(run: Run) -> None:
    for venue, product_id in GONE.items():
        run.inject("delist", [venue], seconds=60, symbol=product_id)
    since_us = run.inject("drop")
    run.again(since_us, but=GONE)
    run.go_on(clock_us(), dict.fromkeys(VENUES, 2), but=GONE)
    for venue, product_id in GONE.items():
        [protocol] = run.protocols[venue][1:]
        run.bus.until(lambda name: run.state(name).silent_streams == sorted(streams(run, name)), [venue])
        assert not [quote for quote in run.bus.quotes(venue, 2) if quote.product_id == product_id], venue
        assert set(protocol.silent().values()) == {product_id}, venue
        run.bus.until(lambda name: run.said(name, "streams that never spoke"), [venue])
        refusals = run.said(venue, "streams were refused")
        if venue == "binance":  # an unknown name is taken without a word
            assert refusals == []
        else:
            named = {stream for refusal in refusals for stream in refusal["streams"].split(", ")}
            assert named == streams(run, venue), venue


def streams(run: Run, venue: str) -> set[str]:
    """Return the names of the streams of the product that a venue refuses."""
    fresh = type(run.protocols[venue][0])(None, [GONE[venue]], 0)  # type: ignore[call-arg] # each takes these
    return set(fresh.silent())


def test_a_huge_frame_is_read(run: Run) -> None:
    """1.1 MB between a frame's last fields: it says what it says, and nothing is disturbed."""
    longest = dict.fromkeys(VENUES, 0)
    for venue in VENUES:
        [protocol] = run.protocols[venue]
        decode = protocol.decode

        def measured(frame: bytes, at_us: int, venue: str = venue, decode: Any = decode) -> Any:
            longest[venue] = max(longest[venue], len(frame))
            return decode(frame, at_us)

        protocol.decode = measured  # type: ignore[method-assign, assignment]
    since_us = run.inject("huge", count=3)
    run.bus.until(lambda venue: longest[venue] > (1_000 if venue == "htx" else 1_000_000))  # HTX's are compressed
    run.go_on(max(since_us, clock_us()), FIRST)
    for venue in VENUES:
        assert run.warnings(venue) == [], venue
        assert run.state(venue).gaps == 0, venue


def test_maintenance_is_followed_to_another_connection(run: Run) -> None:
    """Where the venue announces it, the next connection takes over before; elsewhere it follows the close."""
    since_us = run.inject("maintenance")
    run.again(since_us)
    run.go_on(clock_us(), dict.fromkeys(VENUES, 2))
    for venue in NOTICES:
        assert run.said(venue, "the venue announces the end of the connection"), venue
        assert run.said(venue, "the next connection takes over"), venue
        assert hole_us(run, venue, 1) < 0, venue
        contiguous(run, venue)
    for venue in CLOSERS:
        [close] = run.said(venue, "the venue closed the connection")
        assert close["code"] == 1012, venue
        assert hole_us(run, venue, 1) > 0, venue


def test_a_venue_that_refuses_connections_is_tried_until_it_does_not(run: Run) -> None:
    """Meanwhile the collector's state says that there is no connection."""
    run.inject("refuse", seconds=600)
    since_us = run.inject("drop")
    run.bus.until(lambda venue: run.state(venue).connected_since_us is None)
    run.bus.until(lambda venue: run.said(venue, "no connection"))
    run.bus.spell(1)
    run.inject("clear")
    run.again(since_us)
    for venue in VENUES:
        assert "503" in run.said(venue, "no connection")[0]["error"], venue
        run.bus.until(lambda name: run.state(name).reconnects > 1, [venue])
        assert run.bus.token(venue) > 2, venue
        assert hole_us(run, venue, 1) > 1e6, venue


def test_a_quiet_venue_is_not_cut_off(run: Run) -> None:
    """Where nothing is quoted or traded the venue's signs of life are enough, asked for or not."""
    run.simulated.market.quiet = True
    run.bus.spell(0.5)  # some may be on their way
    since_us = clock_us()
    run.bus.spell(2.5 * max(SILENCE_S.values()) / 2)
    for venue in VENUES:
        assert not [quote for quote in run.bus.quotes(venue) if quote.received_time_us > since_us], venue
        assert run.warnings(venue) == [], venue
    now_us = clock_us()
    run.bus.until(lambda venue: max(mark.marked_time_us for mark in run.bus.marks(venue, 1)) > now_us)
    run.simulated.market.quiet = False
    run.go_on(clock_us(), FIRST)


def contiguous(run: Run, venue: str) -> None:
    """Check that no trade is missing between two connections of a venue."""
    for product_id in BOOKS[venue]:
        ids = sorted({int(trade.trade_id) for trade in run.bus.trades(venue) if trade.product_id == product_id})
        assert ids == list(range(ids[0], ids[-1] + 1)), (venue, product_id)


def test_a_connection_is_replaced_before_its_time_is_over(redis_url: str) -> None:
    """By one that was opened before: marks go on, and no trade is missing."""
    with collecting(redis_url, lifetime_s=1.5) as run:
        run.settle()
        # What the next connection says first comes late, as it does over a long way.
        run.inject("slow", seconds=60, delay_s=0.5)
        run.bus.until(lambda venue: run.bus.token(venue) >= 3 and run.traded(venue), limit_s=60, said=run.story)
    for venue in VENUES:
        times = [mark.marked_time_us for mark in run.bus.marks(venue)]
        assert max(after - before for before, after in pairwise(times)) < 1.5e6, venue
        tokens = [mark.token for mark in run.bus.marks(venue)]
        assert tokens == sorted(tokens), venue
        assert len(run.said(venue, "the next connection takes over")) >= 2, venue
        assert not run.warnings(venue), venue
        assert run.state(venue).reconnects == 0, venue
        contiguous(run, venue)
        for before, after in pairwise(sorted({span.token for span in run.histories[venue].spans})):
            until_us = max(span.until_us for span in spans(run, venue, before))
            assert min(span.from_us for span in spans(run, venue, after)) < until_us, venue


def test_the_history_of_a_run_has_a_hole_where_the_connection_was_away(run: Run) -> None:
    """A mean over a window covers all of it but the hole."""
    run.bus.spell(2.2)  # a chunk or two
    run.inject("refuse", seconds=0.8)
    since_us = run.inject("drop")
    run.again(since_us)
    run.bus.until(lambda venue: len({span.token for span in run.histories[venue].spans}) == 2, said=run.story)
    for venue in VENUES:
        history = run.histories[venue]
        lived = sorted(history.spans, key=lambda span: (span.token, span.from_us))
        for before, after in pairwise(lived):
            if before.token == after.token:
                assert before.until_us == after.from_us, venue
            else:
                assert before.until_us < after.from_us, venue
        old, new = sorted({span.token for span in lived})
        ended_us = max(span.until_us for span in lived if span.token == old)
        until_us = max(span.until_us for span in lived if span.token == new)
        chunks = [chunk for chunk in history.chunks if chunk.product_id == BOOKS[venue][0]]
        first, again = (began_us(chunks, token) for token in (old, new))
        whole = window_mean(chunks, lived, first, ended_us, lambda sample: sample.bid)
        holed = window_mean(chunks, lived, first, until_us, lambda sample: sample.bid)
        assert whole.coverage == 1, venue
        away = (again - ended_us) / (until_us - first)
        assert float(holed.coverage) == pytest.approx(1 - away), venue
        assert away > 0, venue


def test_what_is_seen_stays_in_order() -> None:
    """A quote that was read before a flush and decoded after it counts from the flush on, not from before it."""
    history = History("okx", 2, 0, "simulated")
    inherited = LatestPrice("okx", "BTC-USD", Decimal(5), 1, None, None, None, None, False, None, "simulated")
    history.take([], {"BTC-USD": inherited}, 1_000)
    history.take(
        [Quote("okx", "BTC-USD", 2, 1, Decimal(4), Decimal(1), Decimal(6), Decimal(1), True, None, 990)], {}, 1_010
    )
    chunks, span = history.flush(2_000, 2_000, ())
    mean = window_mean(chunks.values(), [span], 1_000, 2_000, lambda sample: sample.bid)
    assert (mean.value, mean.coverage) == (Decimal(4), Decimal(1))


def began_us(chunks: list[Chunk], token: int) -> int:
    """Return when a connection first knew a bid."""
    return min(s.time_us for chunk in chunks if chunk.token == token for s in chunk.samples if s.bid is not None)


@contextmanager
def process(name: str, environment: dict[str, str], folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the collectors of all venues in a process of their own, with their real limits."""
    output = folder / name
    with output.open("wb") as told:
        command = [sys.executable, "-m", "workers.collector", *VENUES]
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=subprocess.STDOUT)
    try:
        yield running, output
    finally:
        running.kill()
        running.wait(10)


def stands_by(output: Path, venue: str) -> bool:
    return any("standing by" in line and f"venue={venue}" in line for line in output.read_text().splitlines())


def rises(bus: Bus, before: dict[str, int], venue: str) -> bool:
    return bus.token(venue) > before[venue]


def test_a_stand_by_takes_over(redis_url: str, database_url: str, tmp_path: Path) -> None:
    """From a collector that is killed once its lease has run out, from one that stops at once; no number is missing."""
    with ExitStack() as stack:
        told = stack.enter_context(simulated(INSTRUMENTS))
        bus = Bus(stack.enter_context(connect(redis_url)))
        environment = {
            **os.environ,
            "CROSSFILL_DATABASE_URL": database_url,
            "CROSSFILL_BROKER_URL": redis_url,
            "CROSSFILL_VENUE_URLS": str(dict(told.urls)).replace("'", '"'),
        }
        database = Database.open(database_url)
        fix_shards(database, None)
        database.close()
        holder, output = stack.enter_context(process("first", environment, tmp_path))
        bus.until(bus.token, limit_s=60, said=lambda _venue: output.read_text()[-500:])
        client = stack.enter_context(connect(redis_url))
        for name, number in (("second", signal.SIGKILL), ("third", signal.SIGTERM)):
            stand_by, output = stack.enter_context(process(name, environment, tmp_path))
            bus.until(partial(stands_by, output), limit_s=60)
            before = {venue: bus.token(venue) for venue in VENUES}
            owners = {venue: client.get(venue_lease_key(venue)) for venue in VENUES}
            holder.send_signal(number)
            holder.wait(30)
            if number == signal.SIGTERM:  # it gave back what it held
                assert not [venue for venue in VENUES if client.get(venue_lease_key(venue)) == owners[venue]]
            bus.until(partial(rises, bus, before))
            holder = stand_by
        bus.spell(0.5)
    for venue in VENUES:
        quotes = bus.quotes(venue)
        assert [quote.token for quote in quotes] == sorted(quote.token for quote in quotes), venue
        for token in {quote.token for quote in quotes}:
            numbers = [quote.number for quote in bus.quotes(venue, token)]
            assert numbers == list(range(1, len(numbers) + 1)), venue
