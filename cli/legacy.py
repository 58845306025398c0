"""The compact config file of those who come from another service: `CONFIG_FILE=conf.json crossfill vwap`, or `up`.

docs/coming-from.md has its keys, and the settings that they stand for.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS
from models.domain.vwap import WINDOW_MAX

if TYPE_CHECKING:
    from models.bus.kafka import KafkaTopics

FILE = "CONFIG_FILE"
COINBASE = "coinbase"  # the one venue that the file speaks of
KAFKA_S_MAX = 3_600
DIGITS_MAX = 20
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*")(?P<colon>\s*:)?|[{}\[\]]')
_PRODUCT = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")


class ConfigFileError(CrossfillError):
    """The file is not what it should be; the sentence names its line and key."""


@dataclass(frozen=True)
class Config:
    """What the file says. `brokers` has the products that are published at each."""

    ws_url: str | None = None
    max_size: int | None = None
    products: tuple[str, ...] = ()
    brokers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    log_level: int | None = None
    kafka_time: float = 0.0


def read(path: Path, check: Callable[[Config], None] = lambda _: None) -> Config:
    """Return what a config file says, if it also stands a further check. Raises ConfigFileError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise ConfigFileError(f"{path} ({FILE}) cannot be read: {why}") from error
    try:
        told = json.loads(text, parse_int=_whole)
    except json.JSONDecodeError as error:
        problem = error.msg[0].lower() + error.msg[1:]
        raise ConfigFileError(f"{path}, line {error.lineno}, column {error.colno}: {problem}") from error
    except RecursionError as error:
        raise ConfigFileError(f"{path}: its nesting is beyond all measure") from error
    if not isinstance(told, dict):
        raise ConfigFileError(f'{path}, line 1: it must be an object, as {{"products": ["BTC-USD"]}}')
    lines: dict[tuple[str, ...], int] = {}
    for keys, line in _keys(text):
        if keys in lines:
            raise ConfigFileError(f"{path}, line {line}: {keys[-1]}: it is given twice, first in line {lines[keys]}")
        lines[keys] = line
    try:
        config = Config(**{key: _checked(key, value, told) for key, value in told.items()})
        check(config)
    except _Wrong as error:
        raise ConfigFileError(f"{path}, line {lines[error.keys]}: {error.keys[-1]}: {error}") from error
    return config


class _Wrong(Exception):  # noqa: N818 -- it becomes a ConfigFileError, with its line
    def __init__(self, sentence: str, *keys: str) -> None:
        super().__init__(sentence)
        self.keys = keys


def _keys(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the keys of sound JSON, below those of the objects that they are in, with their lines."""
    above: list[str] = []
    key = ""
    for token in _TOKEN.finditer(text):
        if token["colon"]:
            key = json.loads(token["text"])
            yield (*above[1:], key), text.count("\n", 0, token.start()) + 1
        elif token[0] in "{[":
            above.append(key)
        elif token[0] in "}]":
            above.pop()


def _whole(digits: str) -> float:
    # Python refuses thousands of digits without saying where; what is infinite is out of range, with its line and key.
    return int(digits) if len(digits) < DIGITS_MAX else inf


def _checked(key: str, value: object, told: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- what Config has under the key
    if key not in _CHECKS:
        near = get_close_matches(key, _CHECKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(_CHECKS)}"
        raise _Wrong(f"there is no such key; {hint}", key)
    if key == "brokers":
        return _brokers(value, told.get("products", []))
    try:
        return _CHECKS[key](value)
    except ValueError as error:
        raise _Wrong(f"{json.dumps(value)} {error}", key) from error


def _address(value: object) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        sound = parts is not None and parts.scheme in {"ws", "wss"} and parts.hostname and parts.port != 0
    except ValueError:  # brackets that are left open, a port out of range
        sound = False
    if not sound:
        raise ValueError("is no address; write wss://host or ws://host:port")
    return str(value)


def _size(value: object) -> int:
    if type(value) is not int:
        raise ValueError("is not a whole number")
    if not 1 <= value <= WINDOW_MAX:
        raise ValueError(f"is out of range; 1 to {WINDOW_MAX}")
    return value


def _products(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError('is no list of products; write ["BTC-USD", "ETH-USD"]')
    for each in value:
        if not isinstance(each, str) or not _PRODUCT.fullmatch(each):
            raise ValueError(f"has {json.dumps(each)}, which is no product's id; write BTC-USD")
    return tuple(dict.fromkeys(value))


def _level(value: object) -> int:
    if not isinstance(value, str) or value.upper() not in LEVELS:
        raise ValueError(f"is none of {', '.join(LEVELS)}")
    return logging.getLevelNamesMapping()[value.upper()]


def _seconds(value: object) -> float:
    if type(value) not in {int, float}:
        raise ValueError("is not a number of seconds")
    if not 0 <= value <= KAFKA_S_MAX:  # type: ignore[operator] # it is a number
        raise ValueError(f"is out of range; 0 (each update) to {KAFKA_S_MAX} seconds")
    return float(value)  # type: ignore[arg-type] # likewise


def _brokers(value: object, products: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise _Wrong(f'{json.dumps(value)} is no object; write {{"host:9092": ["BTC-USD"]}}', "brokers")
    found = {}
    for broker, listed in value.items():
        keys = ("brokers", broker)
        try:
            parts = urlsplit(f"//{broker}")
            sound = parts.hostname and parts.port and parts.netloc == broker and "@" not in broker
        except ValueError:
            sound = False
        if not sound:
            raise _Wrong("it is no broker; write host:port", *keys)
        try:
            found[broker] = _products(listed)
        except ValueError as error:
            raise _Wrong(f"{json.dumps(listed)} {error}", *keys) from error
        for product in found[broker]:
            if product not in products:
                raise _Wrong(f"{product} is not among the products", *keys)
    return found


_CHECKS: dict[str, Callable[[object], object]] = {
    "ws_url": _address,
    "max_size": _size,
    "products": _products,
    "brokers": _products,  # never asked: it has keys of its own
    "log_level": _level,
    "kafka_time": _seconds,
}


class Publisher:
    """Publishes each product's updates where `brokers` say: topic and key are its id, the value is the text.

    Each update with `kafka_time` 0; otherwise each product's newest one so often, in seconds, if there is one.
    """

    def __init__(self, config: Config) -> None:
        self._every_s = config.kafka_time
        self._due = 0.0
        self._newest: dict[str, str] = {}
        self._at: dict[str, list[KafkaTopics]] = {}
        self._topics = [_topics(broker, products, self._at) for broker, products in config.brokers.items()]

    def tell(self, product: str, text: str) -> None:
        """Publish an update, now or when it is time."""
        if product in self._at:
            self._newest[product] = text
            if not self._every_s:
                self._send()

    def tick(self) -> None:
        """Publish what waits, if it is time."""
        now = time.monotonic()
        if self._newest and now >= self._due:
            self._due = now + self._every_s
            self._send()

    def close(self) -> None:
        """Publish what waits, and end."""
        self._send()
        for topics in self._topics:
            topics.close()

    def _send(self) -> None:
        for product, text in self._newest.items():
            for topics in self._at[product]:
                topics.send(product, product, text.encode())
        self._newest.clear()


def _topics(broker: str, products: Sequence[str], at: dict[str, list["KafkaTopics"]]) -> "KafkaTopics":
    from models.bus.kafka import KafkaTopics  # noqa: PLC0415 -- only who has Kafka pays for its client

    made = KafkaTopics(broker)
    for product in products:
        at.setdefault(product, []).append(made)
    return made


def environment(path: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return our settings that stand for a config file, without those that are `given`. Raises ConfigFileError."""
    config = read(path, _check_for_all)
    symbols = [INSTRUMENTS.of_product(COINBASE, product) for product in config.products]
    made = {
        "CROSSFILL_VENUES": COINBASE if config.ws_url or symbols else None,
        "CROSSFILL_VENUE_URLS": json.dumps({COINBASE: config.ws_url}) if config.ws_url else None,
        "CROSSFILL_PAIRS": ",".join(each.symbol for each in symbols if each),
        "CROSSFILL_BUS_URL": f"kafka://{','.join(config.brokers)}" if config.brokers else None,
        "CROSSFILL_VWAP_WINDOW": config.max_size,
        "CROSSFILL_LOG_LEVEL": None if config.log_level is None else logging.getLevelName(config.log_level),
        "CROSSFILL_VWAP_TOPIC_S": config.kafka_time,
    }
    return {name: str(value) for name, value in made.items() if value and name not in given}


def _check_for_all(config: Config) -> None:
    """Refuse what the whole system cannot do as `crossfill vwap` can."""
    for product in config.products:
        if INSTRUMENTS.of_product(COINBASE, product) is None:
            known = ", ".join(sorted(INSTRUMENTS.products_of(COINBASE)))
            raise _Wrong(f"{product} is for crossfill vwap alone; here there are {known}", "products")
    if len(set(map(frozenset, config.brokers.values()))) > 1:
        raise _Wrong("its topics are at one cluster, whose brokers all have the same products", "brokers")
