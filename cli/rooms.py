"""`crossfill watch ROOM...`: rooms of market data, as the notifier tells them."""

import json
import time
from queue import Empty, Queue
from typing import Any

import typer

from cli.remote import fail, remote
from cli.tables import short

SIGNAL = "signal.raised"
SIGNAL_S = 1.0  # for so long the latest signal is waited for


def follow(rooms: list[str], *, once: bool, as_json: bool) -> None:
    """Print what rooms tell, a line a message; with `once` what each has now, a signal only where there is one."""
    import socketio  # noqa: PLC0415 -- only who listens pays for it

    found = remote()
    if not found.token:
        fail("there is no token: set CROSSFILL_TOKEN, or run it where .crossfill/token is")
    incoming: Queue[tuple[str, Any]] = Queue()
    client = socketio.Client(reconnection_delay_max=5)

    def ask() -> None:
        client.emit("subscribe", {"rooms": rooms}, callback=lambda answer: incoming.put(("joined", answer)))

    client.on("connect", ask)  # after each reconnection, too
    client.on("*", lambda name, message: incoming.put((name, message)))
    client.on("connect_error", lambda reason: incoming.put(("joined", {"error": reason})))
    try:
        client.connect(found.notifier, auth={"token": found.token}, transports=["websocket"], wait_timeout=5)
        _print(incoming, once=once, as_json=as_json)
    except socketio.exceptions.ConnectionError as error:
        said = next((answer["error"] for name, answer in incoming.queue if name == "joined"), error)
        fail(f"the notifier at {found.notifier} refuses or does not answer: {_sentence(said)}")
    except KeyboardInterrupt:
        return
    finally:
        client.disconnect()


def _print(incoming: Queue[tuple[str, Any]], *, once: bool, as_json: bool) -> None:
    missing: set[str] | None = None  # rooms that have not told anything yet; None before any is joined
    shown: set[str] = set()
    ends_at: float | None = None
    while missing or missing is None or not once:
        if once and ends_at is None and missing is not None and all(room.startswith("signal:") for room in missing):
            ends_at = time.monotonic() + SIGNAL_S  # where a pair has had no signal, none comes
        try:
            name, message = incoming.get(timeout=None if ends_at is None else max(0, ends_at - time.monotonic()))
        except Empty:
            return
        if "error" in message:
            fail(_sentence(message["error"]))
        if "room" in message and not (once and message["room"] in shown):
            shown.add(message["room"])
            typer.echo(json.dumps(message) if as_json else line(name, message))
        elif name == "joined":
            missing = set(message["rooms"])
        missing = None if missing is None else missing - shown


def _sentence(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def line(name: str, message: dict[str, Any]) -> str:
    """Return a message as one line for people."""
    if name == SIGNAL:
        by = f"{message['strategy']} v{message['version']} {message['variant']}"
        averages = f"{short(message['fast'])} and {short(message['slow'])}"
        what = f"{message['cross']} by {by}, {message['venue']} {message['interval']}: {averages}"
        return f"{message['room']}  {what}{'  (before)' if message['snapshot'] else ''}"
    told = message.get("prices") or message.get("vwaps") or message.get("candles") or {}
    venues = (f"{venue} {_of_venue(name, each)}" for venue, each in told.items())
    return f"{message['room']}  {'  '.join(venues) or 'nothing is known yet'}"


def _of_venue(name: str, told: dict[str, Any]) -> str:
    if name == "price":
        return f"{short(told['bid']) or '-'}/{short(told['ask']) or '-'}"
    if name == "vwap":
        return f"{short(told['vwap']) or '-'} ({told['points']})"
    return f"{'/'.join(short(told[part]) for part in ('open', 'high', 'low', 'close'))} ({told['trades']})"
