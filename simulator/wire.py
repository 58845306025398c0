"""What a venue's side of the wire is to the server: pure, one session a connection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from simulator.market import Event, Listing
from simulator.pasts import Answer


class Close(NamedTuple):
    """Why a venue closes a connection, as WebSocket's close frame says it."""

    code: int
    reason: str


@dataclass(frozen=True)
class Timing:
    """A venue's rules of time and rate; None where it has no such rule."""

    messages_per_s_max: int
    ping_s: float | None = None
    pong_within_s: float = 60
    subscribe_within_s: float | None = None


class Session(Protocol):
    """One connection: what it asked for, and what it is told in consequence."""

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""

    def answer(self, text: str, now_us: int) -> list[str]:
        """Return what the venue says to a frame from the client."""

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event of its venue."""

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame in this connection's form, or None where it was not asked for."""

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:
        """Return what the venue says once a second; `replaying` while a recording speaks for it."""

    def overdue(self, now_us: int) -> Close | None:
        """Return why the venue closes this connection now (a ping unanswered, nothing asked for), or None."""


# Called with a counter's name and one of its values; returns the value to put in its place.
Renumber = Callable[[str, int], int]


@dataclass(frozen=True)
class Wire:
    """One venue. `session` takes the path of the request and the venue's products (None in a replay).

    `renumbered` puts other numbers in a recorded frame's counters and moves its times on by so many
    microseconds. `first_again` says whether a session begins by repeating the last trade before it.
    `encode` makes of a frame's text what goes over the wire. `past` answers a request over HTTP for candles
    of the past, by its target, the venue's products and the time; None where it asks for something else.
    The rest is for faults: `notice` announces that the connection will end (None where the venue has no
    such word), `novelty` belongs to a channel that nobody asked for, and `rename` is a field's name in data
    frames that becomes another one.
    """

    name: str
    timing: Timing
    session: Callable[[str, Mapping[str, Listing] | None], Session]
    is_trade: Callable[[str], bool]
    renumbered: Callable[[str, Renumber, int], str]
    first_again: bool
    novelty: str
    rename: tuple[str, str]
    notice: str | None = None
    encode: Callable[[str], str | bytes] = str
    past: Callable[[str, Mapping[str, Listing], int], Answer | None] = lambda _target, _listings, _now_us: None
