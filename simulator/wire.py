"""What a venue's side of the wire is to the server: pure, one session a connection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from simulator.market import Event, Listing


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

    def answer(self, text: str) -> list[str]:
        """Return what the venue says to a frame from the client."""

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event of its venue."""

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame in this connection's form, or None where it was not asked for."""

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:
        """Return what the venue says once a second; `replaying` while a recording speaks for it."""


# Called with a counter's name and one of its values; returns the value to put in its place.
Renumber = Callable[[str, int], int]


@dataclass(frozen=True)
class Wire:
    """One venue. `session` takes the path of the request and the venue's products (None in a replay).

    `renumbered` puts other numbers in a recorded frame's counters and moves its times on by so many
    microseconds. `first_again` says whether a session begins by repeating the last trade before it.
    """

    name: str
    timing: Timing
    session: Callable[[str, Mapping[str, Listing] | None], Session]
    is_trade: Callable[[str], bool]
    renumbered: Callable[[str, Renumber, int], str]
    first_again: bool
