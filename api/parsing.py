"""Bodies: JSON read so that a number is what its text says, and nothing is taken twice or by halves."""

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from starlette.requests import Request

from api.problems import ProblemError, bad_field

DIGITS_MAX = 60  # in a number's text; whatever is longer is no price
EXPONENT_MAX = 40
Word = TypeVar("Word", bound=StrEnum)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NumberText(str):
    """A JSON number as its text: it has not been through a float."""

    __slots__ = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise bad_field(key, "is given twice; give it once")
        found[key] = value
    return found


def _constant(text: str) -> NoReturn:
    raise ProblemError(400, "The body is not JSON", f"{text} is not JSON; give a decimal number")


# Decodes JSON as every body is decoded: numbers as NumberText, no field twice. Raises ProblemError and ValueError.
decoder = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_float=NumberText,
    parse_int=NumberText,
    parse_constant=_constant,
)


async def read_object(request: Request, bytes_max: int) -> dict[str, Any]:
    """Return the body as a JSON object, with numbers as NumberText. Raises ProblemError."""
    size = request.headers.get("content-length", "0")
    if size.isdigit() and int(size) > bytes_max:
        raise _too_large(bytes_max)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    try:
        value = decoder.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "The body is not JSON", f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProblemError(400, "The body is not an object", "the body must be a JSON object")
    return value


def _too_large(bytes_max: int) -> ProblemError:
    return ProblemError(413, "The body is too large", f"the body may have {bytes_max} bytes at most")


def number(field: str, value: object) -> Decimal:
    """Return a JSON number, or a text that holds a plain decimal number, exactly. Raises ProblemError."""
    if not isinstance(value, str):
        raise bad_field(field, f'{json.dumps(value)} is not a number; give a decimal number such as 0.5 or "0.5"')
    if not _NUMBER.fullmatch(value):
        raise bad_field(field, f'{str(value)!r} is not a number; give a decimal number such as 0.5 or "0.5"')
    if len(value) > DIGITS_MAX:
        raise bad_field(field, f"has more than {DIGITS_MAX} characters; nothing is that precise")
    try:
        made = Decimal(value)
    except InvalidOperation as error:
        raise bad_field(field, f"{str(value)!r} is out of range") from error
    if made and abs(made.adjusted()) > EXPONENT_MAX:
        raise bad_field(field, f"{str(value)!r} is out of range")
    return made


def text(field: str, value: object, length_max: int) -> str:
    """Return a text of printable characters. Raises ProblemError."""
    if not isinstance(value, str) or isinstance(value, NumberText):
        raise bad_field(field, "is not a text")
    if not 1 <= len(value) <= length_max or not value.isprintable():
        raise bad_field(field, f"must have 1 to {length_max} printable characters")
    return str(value)


def time_us(field: str, value: object, also: str = "give") -> int:
    """Return a time given as RFC 3339 text, in microseconds since the epoch. Raises ProblemError."""
    try:
        moment = datetime.fromisoformat(text(field, value, 40))
    except ValueError as error:
        raise bad_field(field, f"{value!r} is no time; {also} one as 2026-11-21T12:00:00Z") from error
    if moment.tzinfo is None:
        raise bad_field(field, f"{value!r} names no time zone; end it with Z for UTC")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def word(field: str, value: object, words: type[Word]) -> Word:
    """Return one of some words. Raises ProblemError, which lists them."""
    try:
        return words(str(value))
    except ValueError as error:
        allowed = [each.value for each in words]
        raise bad_field(field, f"{value!r} is unknown; one of {', '.join(allowed)}", allowed=allowed) from error
