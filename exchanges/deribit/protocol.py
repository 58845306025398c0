"""Deribit's market channels (docs.deribit.com, JSON-RPC over WebSocket)."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from exchanges.deribit import wire
from exchanges.protocol import (
    EXCERPT_MAX,
    Acknowledged,
    Event,
    Gap,
    Heartbeat,
    LastPrice,
    Limits,
    MalformedError,
    Reply,
    VenueError,
    check_level,
    unknown,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

VENUE = "deribit"
OWN_URL = "wss://www.deribit.com"
CHANNELS_MAX = 500  # a call
HEARTBEAT_ID, TEST_ID, FIRST_ID = 1, 2, 3
TOO_MANY_REQUESTS = 10028
# A call of public/subscribe costs 3,000 credits, of which 10,000 a second come back.
SPACING_US = 310_000

# Frames of a channel begin with its name, so what reads them is found before they are decoded.
HEAD = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'
HEAD_BYTES = len(HEAD)

Reader = Callable[[bytes, str, int], Sequence[Event]]

_envelope = msgspec.json.Decoder(wire.Envelope)
_names = msgspec.json.Decoder(list[str])
_quote = msgspec.json.Decoder(wire.Notification[wire.Quote]).decode
_trades = msgspec.json.Decoder(wire.Notification[list[wire.Trade]]).decode
_index = msgspec.json.Decoder(wire.Notification[wire.Index]).decode
_candle = msgspec.json.Decoder(wire.Notification[wire.VenueCandle]).decode


class Deribit:
    """One connection: books by their names in capitals (BTC_USDC), price indexes by theirs in small letters (btc_usd).

    A quiet market brings only a heartbeat each 10 s. So a connection without a word for 2 s is asked
    for one (500 of 10,000 credits a second), and after 5 s it is dead.
    """

    limits = Limits(silence_s=5, first_message_s=60, ping_s=2)

    def __init__(self, url: str | None, product_ids: Sequence[str], token: int) -> None:
        self._url = url or OWN_URL
        self._token = token
        self._silent: dict[str, str] = {}
        # The beginning of a channel's frames -> its stream, product and reader.
        self._streams: dict[bytes, tuple[str, str, Reader]] = {}
        for pid in product_ids:
            self._listen(pid)
        self._asked = tuple(self._silent)
        batches = [self._asked[start : start + CHANNELS_MAX] for start in range(0, len(self._asked), CHANNELS_MAX)]
        self._batches = dict(enumerate(batches, FIRST_ID))
        self._waiting = dict(self._batches)  # what is not answered yet, by the id of the request
        self._next_id = FIRST_ID + len(batches)
        self._left: deque[str] = deque()  # what is still to be asked for on its own
        self._due_us = 0
        self._taken: set[str] = set()
        self._last_trades: dict[str, int] = {}

    def _listen(self, pid: str) -> None:
        readers: dict[str, Reader] = {
            f"quote.{pid}": self._quote,
            f"trades.{pid}.100ms": self._trades,
            f"chart.trades.{pid}.1": self._candle,
        }
        if pid.islower():
            readers = {f"deribit_price_index.{pid}": self._index}
        for stream, reader in readers.items():
            self._silent[stream] = pid
            self._streams[HEAD + stream.encode()] = stream, pid, reader
        if not pid.islower():
            # The same trades at another pace: recordings have them.
            self._streams[HEAD + f"trades.{pid}.agg2".encode()] = self._streams[HEAD + f"trades.{pid}.100ms".encode()]

    def url(self) -> str:
        """Return the address."""
        return f"{self._url}/ws/api/v2"

    def subscribe_frames(self) -> Sequence[str]:
        """Return requests for a heartbeat each 10 s, the least there is, and for up to 500 channels each."""
        heartbeat = _request(HEARTBEAT_ID, "public/set_heartbeat", interval=10)
        return [heartbeat, *(_subscribe(number, batch) for number, batch in self._batches.items())]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the request bears no time
        """Return public/test: the venue's heartbeats are too far apart."""
        return TEST

    def silent(self) -> Mapping[str, str]:
        """Return the streams that have not spoken yet: an unknown channel is left out of the answer without a word."""
        return self._silent

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        try:
            stream = self._streams.get(frame[: frame.find(b'"', HEAD_BYTES)])
            if stream is None:
                events = self._control(_envelope.decode(frame), frame, received_time_us)
            else:
                name, pid, reader = stream
                events = reader(frame, pid, received_time_us)
                if self._silent:
                    self._silent.pop(name, None)
        except (*MalformedError, RecursionError) as error:
            events = (unknown(str(error), frame),)
        if self._left and received_time_us >= self._due_us:
            return [*events, self._ask(received_time_us)]
        return events

    def _control(self, envelope: wire.Envelope, frame: bytes, received: int) -> Sequence[Event]:
        params = envelope.params or wire.Params()
        if envelope.method == "subscription" and params.channel is not None:
            return self._other_order(params.channel, frame, received)
        if envelope.method == "heartbeat" and params.type in ("heartbeat", "test_request"):
            return (Heartbeat(),) if params.type == "heartbeat" else (Reply(TEST), Heartbeat())
        if envelope.method is None and envelope.error is not None:
            return self._refused(envelope.id, envelope.error)
        if envelope.method is None and bytes(envelope.result):
            return self._accepted(envelope, frame)
        return (unknown("no channel, heartbeat or answer", frame),)

    def _other_order(self, channel: str, frame: bytes, received: int) -> Sequence[Event]:
        """Return what a frame says that does not begin with its channel, because its fields are in another order."""
        stream = self._streams.get(HEAD + channel.encode())
        if stream is None:
            return (unknown(f"channel {channel} was not asked for", frame),)
        name, pid, reader = stream
        events = reader(frame, pid, received)
        self._silent.pop(name, None)
        return events

    def _accepted(self, answer: wire.Envelope, frame: bytes) -> Sequence[Event]:
        number = answer.id
        if number in (HEARTBEAT_ID, TEST_ID):
            return (Heartbeat(),)
        if not isinstance(number, int) or number not in self._waiting:
            return (unknown(f"an answer to {number!r}, which was not asked", frame),)
        self._taken.update(_names.decode(answer.result))
        del self._waiting[number]
        return self._answered()

    def _refused(self, number: int | str | None, error: wire.Error) -> Sequence[Event]:
        """One channel that is refused refuses its whole call, so its channels are then asked for one by one."""
        more = bytes(error.data)[:EXCERPT_MAX].decode(errors="replace")
        complaint = VenueError(f"code {error.code}: {error.message}{more and f' ({more})'}")
        # After too many requests the venue closes the connection, and one more would not help.
        if not isinstance(number, int) or number not in self._waiting or error.code == TOO_MANY_REQUESTS:
            return (complaint,)
        channels = self._waiting.pop(number)
        if len(channels) > 1:
            self._left.extend(channels)
        return (complaint, *self._answered())

    def _ask(self, now_us: int) -> Event:
        """Ask for the next channel; the one after it is due a while later, with whatever frame comes then."""
        number, channels = self._next_id, (self._left.popleft(),)
        self._waiting[number] = channels
        self._next_id, self._due_us = number + 1, now_us + SPACING_US
        return Reply(_subscribe(number, channels))

    def _answered(self) -> Sequence[Event]:
        """Compare what was taken with what was asked for, once every request has its answer."""
        if self._waiting or self._left:
            return ()
        return (Acknowledged(tuple(name for name in self._asked if name not in self._taken)),)

    def _quote(self, frame: bytes, pid: str, received: int) -> Sequence[Event]:
        quote = _quote(frame).params.data
        if quote.instrument_name != pid:
            raise _misplaced(quote.instrument_name, pid)
        bid, bid_size = _side(quote.best_bid_price, quote.best_bid_amount)
        ask, ask_size = _side(quote.best_ask_price, quote.best_ask_amount)
        moment = quote.timestamp * 1000
        # Live: it comes with each change, with sizes.
        return (Quote(VENUE, pid, self._token, 0, bid, bid_size, ask, ask_size, True, moment, received),)  # noqa: FBT003 -- live

    def _trades(self, frame: bytes, pid: str, received: int) -> Sequence[Event]:
        trades = _trades(frame).params.data
        for trade in trades:  # all of them before the first is believed
            if trade.instrument_name != pid:
                raise _misplaced(trade.instrument_name, pid)
            check_level(trade.price, trade.amount)
        if len(trades) > 1:
            trades.sort(key=lambda trade: trade.trade_seq)
        events: list[Event] = []
        last = self._last_trades.get(pid)
        for trade in trades:
            number = trade.trade_seq
            if last is not None and number <= last:
                continue
            events.append(
                Trade(
                    VENUE,
                    pid,
                    self._token,
                    str(number),
                    trade.price,
                    trade.amount,
                    trade.direction,
                    trade.timestamp * 1000,
                    received,
                )
            )
            if last is not None and number > last + 1:
                events.append(Gap(pid, number - last - 1))
            last = self._last_trades[pid] = number
        return events

    def _index(self, frame: bytes, pid: str, received: int) -> Sequence[Event]:
        index = _index(frame).params.data
        if index.index_name != pid:
            raise _misplaced(index.index_name, pid)
        check_level(index.price, Decimal(1))
        # By our own clock: one of the venue's that goes back would make every price look older than the one before.
        return (LastPrice(VENUE, pid, index.price, received),)

    def _candle(self, frame: bytes, pid: str, received: int) -> Sequence[Event]:
        candle = _candle(frame).params.data
        for price in (candle.open, candle.high, candle.low, candle.close):
            check_level(price, candle.volume)
        check_level(candle.open, candle.cost)
        return (
            VenueCandle(
                VENUE,
                pid,
                self._token,
                60,
                candle.tick * 1000,
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
                candle.cost,
                None,
                None,
                received,
            ),
        )


def _side(price: Decimal | None, size: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """Return a side of the book, or nothing where it is empty (price 0 or null)."""
    if not price:
        return None, None
    if size is None:
        raise ValueError(f"no size at {price}")
    check_level(price, size)
    return (price, size) if size else (None, None)


def _misplaced(name: str, pid: str) -> ValueError:
    return ValueError(f"{name} in a channel of {pid}")


def _request(number: int, method: str, **params: object) -> str:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).decode()


def _subscribe(number: int, channels: Sequence[str]) -> str:
    return _request(number, "public/subscribe", channels=channels)


TEST = _request(TEST_ID, "public/test")
