"""`crossfill consume`: the records of topics, as they come."""

import json
import time
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from cli.ending import ending
from cli.remote import bus_url, fail

WAIT_S = 0.5
READ_MAX = 64
PAUSE_S = 1.0  # after a failure
BEGINNING, NOW = "beginning", "now"


def consume(
    topic: Annotated[list[str], typer.Option(help="A pair or a venue; may be given more than once.")],
    *,
    begin: Annotated[str, typer.Option("--from", help="`beginning`: all that is kept; `now`: what comes.")] = NOW,
    group: Annotated[str | None, typer.Option(help="Share the records with others who name this group.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
) -> None:
    """Print what is told on topics, until Ctrl-C. A group goes on where it was, whatever --from says."""
    from pydantic import ValidationError  # noqa: PLC0415 -- the help needs none of it

    from models.bus.client import BusUnavailableError  # noqa: PLC0415 -- likewise
    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- likewise

    if begin not in (BEGINNING, NOW):
        fail(f"--from {begin}: give `{BEGINNING}` or `{NOW}`")
    try:
        reader = _reader([_topic(name) for name in dict.fromkeys(topic)], group, beginning=begin == BEGINNING)
        try:
            _consume(reader, as_json=as_json, count=count)
        finally:
            with suppress(BusUnavailableError):  # said already, or of no interest any more
                reader.close()
    except BusUnavailableError as error:
        fail(f"{error}; start Crossfill with `make run`, or set CROSSFILL_BUS_URL")
    except CrossfillError as error:
        fail(str(error))
    except ValidationError as error:
        fail(f"CROSSFILL_{str(error.errors()[0]['loc'][0]).upper()}: {error.errors()[0]['msg']}")
    except KeyboardInterrupt:  # before it began, or for the second time
        return


def _topic(name: str) -> str:
    from models.domain.instruments import INSTRUMENTS, UnknownSymbolError  # noqa: PLC0415 -- the help needs none of it

    if name.lower() in INSTRUMENTS.venues:
        return name.lower()
    try:
        return INSTRUMENTS.resolve(name).symbol
    except UnknownSymbolError as error:
        near = [*get_close_matches(name.lower(), INSTRUMENTS.venues, n=2), *error.near]
        hint = f"did you mean {' or '.join(near)}?" if near else "`crossfill instruments` lists the pairs"
        known = f"topics are pairs (ETH-USD) and venues ({', '.join(INSTRUMENTS.venues)})"
        fail(f"there is no topic {name!r}: {known}; {hint}")


def _reader(topics: list[str], group: str | None, *, beginning: bool) -> Any:  # noqa: ANN401 -- a Reader; its module is loaded late
    from models.settings import Settings  # noqa: PLC0415 -- likewise

    settings = Settings()
    if settings.kafka is not None:
        from models.bus.kafka import KafkaReader, check_options  # noqa: PLC0415 -- only who has Kafka pays for its client

        check_options(settings.kafka_client)
        return KafkaReader(settings.kafka, topics, group=group, beginning=beginning, options=settings.kafka_client)
    from models.bus.client import connect  # noqa: PLC0415 -- likewise
    from models.bus.topics import GroupReader, TopicReader  # noqa: PLC0415 -- likewise

    client = connect(bus_url(settings))
    if group is not None:
        return GroupReader(client, topics, group, beginning=beginning)
    return TopicReader(client, topics, beginning=beginning)


def _consume(reader: Any, *, as_json: bool, count: int | None) -> None:  # noqa: ANN401 -- likewise
    from models.bus.client import BusUnavailableError  # noqa: PLC0415 -- likewise

    ended, left, heard = ending(), count, False
    while not ended.is_set() and (left is None or left > 0):
        try:
            records = reader.read(WAIT_S, READ_MAX if left is None else min(READ_MAX, left))
            for record in records:
                typer.echo(_as_json(record) if as_json else line(record))
            heard, left = True, None if left is None else left - len(records)
            if records:
                reader.done()
        except BusUnavailableError as error:
            if not heard:
                raise
            typer.echo(f"{error}; trying again", err=True)
            ended.wait(PAUSE_S)


def _as_json(record: Any) -> str:  # noqa: ANN401 -- a Record
    fields = {"topic": record.topic, "kind": record.kind.value, "key": record.key, "value": json.loads(record.value)}
    return json.dumps(fields, separators=(",", ":"))


def line(record: Any) -> str:  # noqa: ANN401 -- likewise
    """Return a record as one line for people: pair, venue, kind and what it says; an average is its number alone."""
    told = json.loads(record.value)
    venue = told.get("venue", told.get("exchange"))
    head = f"[{record.key}]" if venue == "all" else f"[{record.key} {venue}]"
    return f"{head} {_WORDS[record.kind](told)}"


def _trade(told: dict[str, Any]) -> str:
    return f"trade {told['taker_side']} {told['size']} at {told['price']}"


def _quote(told: dict[str, Any]) -> str:
    live = "" if told["live"] else ", not live"
    return f"quote {_level(told, 'bid_size', 'bid_price')} | {_level(told, 'ask_size', 'ask_price')}{live}"


def _ticker(told: dict[str, Any]) -> str:
    bid, ask = (_level(told, f"best_{side}_quantity", f"best_{side}_price") for side in ("bid", "offer"))
    return f"ticker {bid} | {ask}, last {told['last_price'] or '-'}"


def _level(told: dict[str, Any], size: str, price: str) -> str:
    return "-" if told[price] is None else f"{told[size] or '?'} at {told[price]}"


def _vwap(told: dict[str, Any]) -> str:
    return told["vwap"] or "nothing traded"


def _candle(told: dict[str, Any]) -> str:
    opened = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told["open_time_us"] // 1_000_000))
    prices = " ".join(told[name] for name in ("open", "high", "low", "close"))
    notes = [
        note
        for note, holds in (
            ("so far", not told["closed"]),
            ("incomplete", told["incomplete"]),
            (f"revision {told['revision']}", told["revision"]),
        )
        if holds
    ]
    return ", ".join([f"candle {told['interval']} {opened} {prices}", f"volume {told['volume']}", *notes])


def _signal(told: dict[str, Any]) -> str:
    averages = f"close {told['close']}, fast {told['fast']}, slow {told['slow']}"
    return f"signal {told['cross']} {told['interval']} by {told['strategy']}/{told['variant']}, {averages}"


_WORDS = {"trade": _trade, "quote": _quote, "ticker": _ticker, "vwap": _vwap, "candle": _candle, "signal": _signal}
