"""Files of orders: JSON lines, a JSON array, or CSV with a header.

A record is a body of POST /order/limit, read by its own rules, with the times of its placing and cancel.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from api.parsing import decoder, number
from api.placing import FIELDS, Ticket, read_ticket
from api.problems import ProblemError, bad_field
from exchanges.protocol import time_us
from models.domain.errors import CrossfillError
from models.domain.instruments import Instruments
from models.domain.orders import Order
from models.domain.replay import Placing
from models.store.events import rfc3339

TIMES = ("at", "cancel_at")
PROBLEMS_MAX = 5  # told of one file
SHOWN_MAX = 60  # characters of a value
BYTES_MAX = 1 << 29
EXAMPLE = '{"symbol": "BTC-USDT", "side": "sell", "order_size": "0.5", "price": "60000", "at": 2.5}'


class OrderFileError(CrossfillError):
    """A file of orders cannot be taken; a sentence for each fault names file, line, field and what is wrong."""

    def __init__(self, problems: list[str]) -> None:
        more = len(problems) - PROBLEMS_MAX
        super().__init__("\n".join([*problems[:PROBLEMS_MAX], *([f"and {more} more"] if more > 0 else [])]))


@dataclass(frozen=True, slots=True)
class Asked:
    """An order of a file: its number there, from 1, and its times in microseconds since the epoch."""

    number: int
    ticket: Ticket
    at_us: int
    cancel_us: int | None

    def placing(self, seq: int, timeout_us: int) -> Placing:
        """Return it as a book takes it; its id is its number in the file."""
        ticket = self.ticket
        order = Order(
            seq=seq,
            id=str(self.number),
            job_id="",
            owner_id="",
            symbol=ticket.instrument.symbol,
            side=ticket.side,
            price=ticket.price,
            size=ticket.size,
            time_in_force=ticket.time_in_force,
            venues=None if ticket.venues is None else frozenset(ticket.venues),
            deadline_us=ticket.deadline_us(self.at_us, timeout_us),
        )
        return Placing(self.at_us, order, self.cancel_us)


def read_orders(file: Path, instruments: Instruments, begun_us: int, ended_us: int) -> list[Asked]:
    """Return the orders of a file in accept order: by their time, then as they stand there.

    `begun_us` and `ended_us` are those of the session. Raises OrderFileError.
    """
    asked, problems = [], []
    named: dict[str, int] = {}  # the line of each client_order_id
    for count, (line, record) in enumerate(_records(file), 1):
        try:
            each = _asked(record, count, instruments, begun_us, ended_us)
            name = each.ticket.client_order_id
            if name in named:
                raise bad_field("client_order_id", f"{name!r} is taken by line {named[name]}; give each order its own")
            if name is not None:
                named[name] = line
            asked.append(each)
        except ProblemError as error:
            problems.append(f"{file}, line {line}: {_sentence(error)}")
    if not asked and not problems:
        problems.append(f"{file} holds no orders; write one a line, as {EXAMPLE}")
    if problems:
        raise OrderFileError(problems)
    return sorted(asked, key=attrgetter("at_us", "number"))


def _sentence(error: ProblemError) -> str:
    """Return what was wrong, and what would be right where the sentence does not say so itself."""
    allowed = [name for field in error.fields or () for name in field.get("allowed", ())]
    hint = f"; one of {', '.join(allowed)}" if allowed and not any(name in error.detail for name in allowed) else ""
    return f"{error.detail}{hint}"


def _asked(record: object, count: int, instruments: Instruments, begun_us: int, ended_us: int) -> Asked:
    if isinstance(record, ProblemError):
        raise record
    if not isinstance(record, dict):
        raise ProblemError(422, "No order", f"{_shown(record)} is no order; write it as {EXAMPLE}")
    times = {name: record.pop(name, None) for name in TIMES}
    unknown = next((field for field in record if field not in FIELDS), None)
    if unknown is not None:
        raise bad_field(unknown, f"is unknown; one of {', '.join((*FIELDS, *TIMES))}")
    ticket = read_ticket(record, instruments)
    at_us = begun_us if times["at"] is None else _time("at", times["at"], begun_us)
    if not begun_us <= at_us <= ended_us:
        side = "before the session begins" if at_us < begun_us else "after the session's end"
        length_s = (ended_us - begun_us) / 1e6
        right = f"0 to {length_s:.6f}, or {rfc3339(begun_us)} to {rfc3339(ended_us)}"
        raise bad_field("at", f"{_shown(times['at'])} is {side}; give {right}")
    cancel_us = None if times["cancel_at"] is None else _time("cancel_at", times["cancel_at"], begun_us)
    if cancel_us is not None and cancel_us < at_us:
        raise bad_field("cancel_at", f"{_shown(times['cancel_at'])} is before the order is placed; give `at` or later")
    return Asked(count, ticket, at_us, cancel_us)


def _time(field: str, value: object, begun_us: int) -> int:
    """Return the time that seconds from the session's beginning name, or a text such as 2024-08-08T23:54:50Z."""
    right = "give seconds from the session's beginning, as 2.5, or a time with its zone, as 2024-08-08T23:54:50Z"
    try:
        if isinstance(value, str) and ":" in value:
            return time_us(datetime.fromisoformat(value))
        return begun_us + int(number(field, value) * 1_000_000)
    except (ValueError, TypeError, ProblemError) as error:
        raise bad_field(field, f"{_shown(value)} is no time; {right}") from error


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _records(file: Path) -> Iterator[tuple[int, object]]:
    """Yield the line and the value of each record; a ProblemError in the place of one that cannot be read."""
    try:
        if file.stat().st_size > BYTES_MAX:
            raise OrderFileError([f"{file} is too large; at most {BYTES_MAX >> 20} MiB of orders"])
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OrderFileError([f"{file} cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise OrderFileError(
            [f"{file} is no UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"]
        ) from error
    if file.suffix.lower() == ".csv":
        return _csv(file, text)
    return _array(file, text) if text.lstrip().startswith("[") else _lines(text)


def _lines(text: str) -> Iterator[tuple[int, object]]:
    for line, written in enumerate(text.split("\n"), 1):
        if written.strip():
            yield line, _decoded(written.strip())


def _decoded(text: str) -> object:
    try:
        return decoder.decode(text)
    except ProblemError as error:
        return error
    except json.JSONDecodeError as error:
        return ProblemError(422, "No JSON", f"is no JSON: {error.msg} at column {error.colno}; write it as {EXAMPLE}")
    except RecursionError:
        return ProblemError(422, "No JSON", f"is nested too deeply; write it as {EXAMPLE}")


def _array(file: Path, text: str) -> Iterator[tuple[int, object]]:
    """Yield the elements of a JSON array one by one, so that each has its line."""
    place = _next(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except ProblemError as error:
            raise OrderFileError([f"{file}, line {line}: {_sentence(error)}"]) from error
        except json.JSONDecodeError as error:
            raise OrderFileError(
                [f"{file}, line {error.lineno}: is no JSON: {error.msg} at column {error.colno}"]
            ) from error
        except RecursionError as error:
            raise OrderFileError([f"{file}, line {line}: is nested too deeply"]) from error
        yield line, value
        place = _next(text, place)
        mark = text[place : place + 1]
        if mark == ",":
            place = _next(text, place + 1)
        elif mark != "]":
            at = text.count("\n", 0, place) + 1
            raise OrderFileError([f"{file}, line {at}: a comma or ] is missing after the order of line {line}"])
    if text[place + 1 :].strip():
        at = text.count("\n", 0, _next(text, place + 1)) + 1
        raise OrderFileError([f"{file}, line {at}: something follows the array's end; remove it"])


def _next(text: str, place: int) -> int:
    """Return the place of the next character that is no space."""
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _csv(file: Path, text: str) -> Iterator[tuple[int, object]]:
    """Yield rows as records: an empty cell is a field left out; venues are parted by spaces or semicolons."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        known = (*FIELDS, *TIMES)
        for name in header:
            if name not in known:
                raise OrderFileError([f"{file}, line 1: column {name!r} is unknown; one of {', '.join(known)}"])
            if header.count(name) > 1:
                raise OrderFileError([f"{file}, line 1: column {name!r} is there twice; give it once"])
        for row in rows:
            if row:
                yield rows.line_num, _row(header, row)
    except csv.Error as error:
        raise OrderFileError([f"{file}, line {rows.line_num}: is no CSV: {error}"]) from error


def _row(header: list[str], row: list[str]) -> object:
    if len(row) != len(header):
        return ProblemError(422, "No order", f"has {len(row)} cells, and the header has {len(header)} columns")
    record: dict[str, Any] = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
    if "venues" in record:
        record["venues"] = record["venues"].replace(";", " ").split()
    return record
