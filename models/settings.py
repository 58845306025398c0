"""The one settings model. Only entrypoints read it; they hand out what each part needs."""

import json
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.domain.candles import INTERVALS_S
from models.domain.instruments import INSTRUMENTS, UnknownSymbolError
from models.domain.quotes import Market
from models.domain.vwap import WINDOW_MAX

Port = Annotated[int, Field(ge=0, le=65535)]
KAFKA, KAFKA_SSL = "kafka://", "kafka+ssl://"
KAFKA_PORTS = {KAFKA: 9092, KAFKA_SSL: 9093}
BUS_SCHEMES = (*KAFKA_PORTS, "redis://", "rediss://", "unix://")


def _interval(name: str) -> str:
    if name not in INTERVALS_S:
        raise ValueError(f"{name!r} is no interval of candles; one of {', '.join(INTERVALS_S)}")
    return name


Interval = Annotated[str, AfterValidator(_interval)]


class Settings(BaseSettings):
    """Every setting is an environment variable: CROSSFILL_ and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSFILL_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # a URL may hold a password
    )

    # Where things are
    home: Path = Path(".crossfill")
    database_url: SecretStr | None = None  # None: SQLite in `home`
    broker_url: SecretStr | None = None  # Celery's Redis; set by `crossfill up` for its children
    bus_url: SecretStr | None = None  # None: the broker's; kafka://host:port,host:port: the topics alone are there
    kafka_options: SecretStr | None = None  # JSON: more options of its client, by librdkafka's names
    topic_length: int = Field(default=2_000, ge=1, le=1_000_000)  # entries of a topic that is a Redis stream, about
    vwap_topic_s: float = Field(default=0, ge=0, le=3_600)  # between averages on the topics, the newest each; 0: all
    host: str = "127.0.0.1"
    api_port: Port = 8000
    notifier_port: Port = 8001
    flower_port: Port = 5555
    metrics_port: Port = 0  # of a worker, which has no other; 0: none is opened
    metrics_token: SecretStr | None = None  # None: /metrics is open on the loopback address, and closed beyond it
    url: str | None = None  # the API, for the command line elsewhere
    notifier_url: str | None = None
    flower_url: str | None = None  # where whoever reads a job's `task_url` finds Flower; None: on this machine
    token: SecretStr | None = None  # for the command line; None: read from `home`/token
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"

    # Market
    market: Market = Market.SIMULATED
    sitting: str = ""  # which of several replays this is: `crossfill up` names each anew, and averages begin anew
    market_data: Path = Path("../shared/market")
    venues: str = ",".join(INSTRUMENTS.venues)
    pairs: str = ""  # that the venues are read for; empty: all. Others may be ordered too, and wait for a quote
    venue_urls: dict[str, str] = {}  # JSON; a venue that is not in it is read at its own address
    seed: int = 7

    # Orders
    order_timeout_s: float = Field(
        default=30,
        gt=0,
        le=86_400,
        validation_alias=AliasChoices("ORDER_TIMEOUT_SECONDS", "order_timeout_s"),
    )
    shards: int | None = Field(default=None, ge=1, le=256)  # None: 1 on SQLite, 16 beyond; fixed once made
    fee_bps: Decimal = Field(default=Decimal(0), ge=0, le=10_000)
    lease_s: float = Field(default=5, ge=1, le=60)
    silence_s: float = Field(default=3, gt=0, le=60)  # no mark for so long: the venue's quotes count for nothing
    waiters_max: int = Field(default=1_000, ge=0)
    accept_queue_max: int = Field(default=768, ge=1)  # a second and a half of 500 a second
    body_bytes_max: int = Field(default=16_384, ge=256)
    events_kept_days: int = Field(default=7, ge=1)
    vwap_window: int = Field(default=200, ge=1, le=WINDOW_MAX)  # trades in a sliding average
    # By interval, as JSON; those that are not in it are kept for ever.
    candles_kept_days: dict[Interval, Annotated[float, Field(gt=0, le=36_500)]] = {"1s": 1, "1m": 90}
    journal: Path | None = None  # tests and replay: what each loop applied, one JSON object a line

    # The archive of trades and best quotes
    archive_url: str | None = None  # a folder or any fsspec URL; None: `archive` in `home`
    archive_days: int = Field(default=30, ge=0)  # 0: for ever
    archive_every_s: float = Field(
        default=300, gt=0, le=3_600, validation_alias=AliasChoices("CROSSFILL_ARCHIVE_EVERY", "archive_every_s")
    )

    @field_validator("pairs")
    @classmethod
    def _known_pairs(cls, names: str) -> str:
        """Return the canonical symbols of what may be in any spelling."""
        try:
            return ",".join(dict.fromkeys(INSTRUMENTS.resolve(name).symbol for name in _listed(names)))
        except UnknownSymbolError as error:
            raise PydanticCustomError("pairs", "{problem}", {"problem": str(error)}) from error

    @field_validator("bus_url")
    @classmethod
    def _known_bus(cls, url: SecretStr | None) -> SecretStr | None:
        """Refuse what neither Redis nor Kafka can be reached by; the URL may hold a password and is not repeated."""
        if url is None or not url.get_secret_value():
            return None
        text = url.get_secret_value()
        if not text.startswith(BUS_SCHEMES):
            raise PydanticCustomError("bus_url", "the bus is at redis://host:port/0 or kafka://host:port,host:port")
        if text.startswith(tuple(KAFKA_PORTS)):
            login, brokers = _kafka_parts(text)
            for broker in brokers:
                _check_broker(broker)
            if login is not None and (text.startswith(KAFKA) or not all(login.partition(":"))):
                raise PydanticCustomError("bus_url", "who signs in names kafka+ssl://user:password@host:port,host:port")
        return url

    @field_validator("kafka_options")
    @classmethod
    def _known_options(cls, options: SecretStr | None) -> SecretStr | None:
        """Refuse what is no JSON object of texts and numbers; it may hold a password and is not repeated."""
        try:
            told = json.loads(options.get_secret_value()) if options and options.get_secret_value() else {}
        except ValueError:
            told = None
        if not isinstance(told, dict) or not all(isinstance(each, str | int | float) for each in told.values()):
            sentence = 'a JSON object of options and their values, as {"ssl.ca.location": "ca.pem"}'
            raise PydanticCustomError("kafka_options", sentence)
        return options

    @property
    def order_timeout(self) -> timedelta:
        """The deadline of an order that names none."""
        return timedelta(seconds=self.order_timeout_s)

    @property
    def candles_kept(self) -> dict[int, timedelta]:
        """For how long candles are kept, by their length in seconds; others are kept for ever."""
        return {INTERVALS_S[name]: timedelta(days=days) for name, days in self.candles_kept_days.items()}

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'crossfill.db').absolute()}"

    @property
    def broker(self) -> str:
        """The Redis URL of Celery's broker."""
        return self.broker_url.get_secret_value() if self.broker_url else "redis://127.0.0.1:6379/0"

    @property
    def bus(self) -> str:
        """The Redis URL of the bus; the broker's where the topics are Kafka's, which carries nothing internal."""
        return self.bus_url.get_secret_value() if self.bus_url and self.kafka is None else self.broker

    @property
    def kafka(self) -> str | None:
        """Kafka's brokers as `host:port,host:port` where the topics are there; None where they are Redis streams."""
        text = self.bus_url.get_secret_value() if self.bus_url else ""
        return ",".join(_kafka_parts(text)[1]) if text.startswith(tuple(KAFKA_PORTS)) else None

    @property
    def kafka_client(self) -> dict[str, str]:
        """What Kafka's client is told beside the brokers, by librdkafka's names. It may hold a password."""
        text = self.bus_url.get_secret_value() if self.bus_url else ""
        made = {}
        if text.startswith(KAFKA_SSL):
            login, _ = _kafka_parts(text)
            made["security.protocol"] = "SSL" if login is None else "SASL_SSL"
            if login is not None:
                user, _, password = login.partition(":")
                made |= {"sasl.mechanism": "PLAIN", "sasl.username": unquote(user), "sasl.password": unquote(password)}
        given = self.kafka_options.get_secret_value() if self.kafka_options else ""
        more = json.loads(given) if given else {}
        return made | {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}

    @property
    def archive(self) -> str:
        """The folder or fsspec URL of the archive."""
        return self.archive_url or str((self.home / "archive").absolute())

    @property
    def venue_names(self) -> tuple[str, ...]:
        """The venues to read, in the order given: those of them that list one of the pairs."""
        return tuple(name for name in _listed(self.venues) if not self.pairs or self._lists_one(name))

    def _lists_one(self, venue: str) -> bool:
        return any(self.reads(each.symbol) for each in INSTRUMENTS.products_of(venue).values())

    def reads(self, symbol: str) -> bool:
        """Whether the venues are read for a pair."""
        return not self.pairs or symbol in _listed(self.pairs)


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _kafka_parts(url: str) -> tuple[str | None, list[str]]:
    """Return who signs in, as `user:password`, and the brokers."""
    scheme = KAFKA_SSL if url.startswith(KAFKA_SSL) else KAFKA
    login, at, listed = url.removeprefix(scheme).rstrip("/").rpartition("@")
    brokers = [broker.strip() for broker in listed.split(",")]
    port = KAFKA_PORTS[scheme]
    return login if at else None, [each if ":" in each or not each else f"{each}:{port}" for each in brokers]


def _check_broker(broker: str) -> None:
    """Raise PydanticCustomError, which pydantic shows without words of its own, unless it is a host with a port."""
    try:
        parts = urlsplit(f"//{broker}")
        sound = parts.hostname and parts.port and broker == parts.netloc and "@" not in broker
    except ValueError:
        sound = False
    if not sound:
        sentence = "each broker of kafka://host:port,host:port is a host and a port of 1 to 65535"
        raise PydanticCustomError("bus_url", sentence)
