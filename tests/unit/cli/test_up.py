import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from cli.programs import LISTENERS, Plan, flower_environment, programs
from cli.up import Health, UpError, _heed, _in_one_line, _market, _replayed, screen
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Market
from models.settings import Settings

PORTS = {
    "api": 8000,
    "notifier": 8001,
    "flower": 5555,
    "redis": 40001,
    "simulator_control": 40002,
    **{f"metrics_{name}": 40020 + place for place, name in enumerate(LISTENERS)},
    **{venue: 40003 + place for place, venue in enumerate(INSTRUMENTS.venues)},
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        settings=Settings(),
        home=tmp_path / ".crossfill",
        ports=PORTS,
        token="the-token",
        redis_password="the-password",
        market=Market.SIMULATED,
    )


def test_no_secret_is_on_a_command_line(plan: Plan) -> None:
    """Everybody on the machine can read command lines; secrets go by the environment."""
    for program in programs(plan):
        assert not any("the-token" in word or "the-password" in word for word in program.command)


def test_the_simulator_gets_no_secret(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated exchange is the world outside."""
    monkeypatch.setenv("CROSSFILL_KAFKA_OPTIONS", '{"sasl.password": "the-password"}')
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka+ssl://user:the-password@a")
    (simulator,) = (program for program in programs(plan) if program.name == "simulator")
    assert "the-password" not in str(simulator.environment)


def test_redis_starts_first_and_ends_last(plan: Plan) -> None:
    """Every other process needs it."""
    listed = programs(plan)
    assert [program.name for program in listed if program.ends_last] == ["redis"]
    assert listed[0].name == "redis"
    assert listed[0].ready is not None


def test_the_live_market_needs_no_simulator(plan: Plan) -> None:
    """Collectors go to the exchanges' own addresses."""
    live = Plan(settings=plan.settings, home=plan.home, ports=PORTS, token="t", redis_password="p", market=Market.LIVE)
    listed = programs(live)
    assert "simulator" not in {program.name for program in listed}
    assert all("CROSSFILL_VENUE_URLS" not in program.environment for program in listed)
    assert all(program.environment["CROSSFILL_MARKET"] == "live" for program in listed)


def test_each_replay_is_a_sitting_of_its_own(plan: Plan) -> None:
    """An earlier replay may have ended later in the market's time; nothing of it may be gone on with."""
    replays = [programs(replace(plan, market=Market.REPLAY, replay=plan.home)) for _ in range(2)]
    first, second = ({each.environment["CROSSFILL_SITTING"] for each in listed} for listed in replays)
    assert len(first) == len(second) == 1
    assert first != second
    assert not any(each.environment.get("CROSSFILL_SITTING") for each in programs(plan))


@pytest.mark.parametrize(
    ("address", "read"),
    [("ws://127.0.0.1:9999", True), ("ws://localhost:9999/x", True), ("wss://ws.bitstamp.net", False), (None, False)],
)
def test_a_venue_that_is_not_simulated_is_read_on_this_machine_only(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, address: str | None, read: bool
) -> None:
    """Elsewhere it may be the real one, and its prices would be taken for made up ones."""
    monkeypatch.setenv("CROSSFILL_VENUES", "binance,bitstamp")
    monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"bitstamp": address} if address else {}))
    made = replace(plan, settings=Settings())
    listed = {program.name: program for program in programs(made)}
    assert ("bitstamp" in listed["collectors"].command) is read
    assert "bitstamp" not in str(listed["simulator"].command)
    urls = json.loads(listed["collectors"].environment["CROSSFILL_VENUE_URLS"])
    assert urls == {"binance": "ws://127.0.0.1:40003"} | ({"bitstamp": address} if read else {})
    assert ("bitstamp: is not simulated" in screen(made, Health("up"), plan.home)) is not read


def test_another_redis_is_used_where_one_is_named(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """With CROSSFILL_BROKER_URL set, no server is bundled and the children inherit the address."""
    monkeypatch.setenv("CROSSFILL_BROKER_URL", "redis://elsewhere/0")
    other = Plan(
        settings=Settings(), home=plan.home, ports=PORTS, token="t", redis_password="p", market=Market.SIMULATED
    )
    listed = programs(other)
    assert "redis" not in {program.name for program in listed}
    assert listed[1].environment["CROSSFILL_BROKER_URL"] == "redis://elsewhere/0"


def test_flower_cannot_be_opened_by_an_inherited_variable(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOWER_UNAUTHENTICATED_API in the shell does not reach Flower, nor any other of its options."""
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    monkeypatch.setenv("FLOWER_AUTH", ".*")
    flower = programs(plan)[-1]
    assert {key for key in flower.environment if key.startswith("FLOWER_")} == set(flower_environment("t", 1))


def test_the_screen_says_what_a_stranger_needs(plan: Plan, tmp_path: Path) -> None:
    """The addresses, where the token is, a curl line to paste, and that prices are made up."""
    text = screen(plan, Health("up"), tmp_path)
    assert "Crossfill is up, on a SIMULATED market" in text
    assert "http://127.0.0.1:8000/order/limit" in text
    assert "$(cat .crossfill/token)" in text
    assert "the-token" not in text
    assert f"\n  {Path(sys.executable).with_name('crossfill')} events\n" in text
    command = text[text.index("  curl") : text.index("\n\nWatch")]
    words = shlex.split(command)
    assert words[0] == "curl"
    assert words[-1] == '{"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001}'


def test_the_order_to_paste_is_of_a_pair_that_is_read(plan: Plan, tmp_path: Path) -> None:
    """Another one would wait for a quote that does not come."""
    text = screen(replace(plan, settings=Settings(pairs="ethusd,BTC-USD")), Health("up"), tmp_path)
    assert '{"symbol": "ETH-USD", "order_size": 1, "price": "0.01"}' in text


def test_the_screen_names_another_state_folder(plan: Plan, tmp_path: Path) -> None:
    """The lines to paste work for a folder that is not the default, from wherever they are pasted."""
    text = screen(plan, Health("up"), tmp_path / "elsewhere")
    assert f"$(cat {plan.home}/token)" in text
    assert f"CROSSFILL_HOME={plan.home} " in text


def test_the_screen_says_what_is_missing(plan: Plan, tmp_path: Path) -> None:
    """A system that is not wholly well says which part is not."""
    text = screen(plan, Health("degraded", ("collectors: coinbase does not answer",)), tmp_path)
    assert "Crossfill is degraded" in text
    assert "\n  collectors: coinbase does not answer\n" in text


def test_a_replay_is_looked_for_here_and_among_the_market_data(tmp_path: Path) -> None:
    """A path is taken as given, or within CROSSFILL_MARKET_DATA."""
    settings = Settings(market_data=tmp_path)
    (tmp_path / "sessions").mkdir()
    assert _market(settings, Path("sessions"), live=False) == (Market.REPLAY, tmp_path / "sessions")
    assert _market(settings, None, live=False) == (Market.SIMULATED, None)
    assert _market(settings, None, live=True) == (Market.LIVE, None)
    with pytest.raises(UpError, match="nowhere is not there"):
        _market(settings, Path("nowhere"), live=False)
    with pytest.raises(UpError, match="exclude each other"):
        _market(settings, Path("sessions"), live=True)


def test_a_bad_setting_is_one_sentence_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named as it is set."""
    with pytest.raises(ValidationError) as caught:
        Settings(api_port=70_000)
    assert _in_one_line(caught.value) == "CROSSFILL_API_PORT: input should be less than or equal to 65535"
    monkeypatch.setenv("ORDER_TIMEOUT_SECONDS", "0")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert _in_one_line(caught.value).startswith("ORDER_TIMEOUT_SECONDS: ")


def test_a_config_file_chooses_what_every_program_gets(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the environment, as if it had been set; what it stands for is said, and that its address is not read."""
    conf = {"ws_url": "wss://ws-feed.exchange.coinbase.com", "max_size": 5, "products": ["BTC-USD"]}
    (tmp_path / "conf.json").write_text(json.dumps(conf))
    monkeypatch.setattr(os, "environ", {**os.environ, "CROSSFILL_VWAP_WINDOW": "9"})
    _heed(tmp_path / "conf.json", live=False)
    told = capsys.readouterr().err.splitlines()
    assert "CROSSFILL_PAIRS=BTC-USD" in told[0]
    assert "read with --live only" in told[1]
    listed = {program.name: program for program in programs(replace(plan, settings=Settings()))}
    assert listed["collectors"].command[-1:] == ("coinbase",)
    assert "binance" not in listed["collectors"].command
    assert json.loads(listed["collectors"].environment["CROSSFILL_VENUE_URLS"]) == {
        "coinbase": f"ws://127.0.0.1:{PORTS['coinbase']}"
    }
    assert {each.environment["CROSSFILL_VWAP_WINDOW"] for each in listed.values() if each.name != "simulator"} == {"9"}
    live = programs(replace(plan, settings=Settings(), market=Market.LIVE))
    (collectors,) = (each for each in live if each.name == "collectors")
    assert json.loads(collectors.environment["CROSSFILL_VENUE_URLS"]) == {"coinbase": conf["ws_url"]}


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    for venue, product in (("binance", "BTCUSDT"), ("kraken", "BTC/USD")):
        line = json.dumps({"t": 1, "f": json.dumps({"product": product})})
        (tmp_path / f"{venue}_1.jsonl").write_text(line + "\n")
    return tmp_path


def test_a_replay_reads_only_venues_that_have_a_session(sessions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A made up market of today beside it would spoil what is said of all venues together; the first line says it."""
    assert _replayed(Settings(), sessions) == ("binance", "kraken")
    said = capsys.readouterr().err
    assert said.startswith("replaying binance, kraken; not read, for want of a session: coinbase, ")
    assert _replayed(Settings(), sessions / "kraken_1.jsonl") == ("kraken",)
    assert _replayed(Settings(pairs="BTC-USD"), sessions) == ("kraken",)


def test_a_venue_that_is_named_must_have_a_session(sessions: Path, plan: Plan) -> None:
    """Or be served on this machine, and then it is read there."""
    assert _replayed(Settings(venues="kraken"), sessions) == ("kraken",)
    with pytest.raises(UpError, match=r"no session of okx \(CROSSFILL_VENUES\) is at .*; of binance, kraken is"):
        _replayed(Settings(venues="okx,kraken"), sessions)
    listed = {instrument.symbol for instrument in INSTRUMENTS.products_of("kraken").values()}
    elsewhere = next(each.symbol for each in INSTRUMENTS if each.symbol not in listed)
    with pytest.raises(UpError, match="where CROSSFILL_PAIRS asks for nothing"):
        _replayed(Settings(pairs=elsewhere), sessions / "kraken_1.jsonl")
    served = Settings(venues="okx,kraken", venue_urls={"okx": "ws://127.0.0.1:9999"})
    assert _replayed(served, sessions) == ("okx", "kraken")
    made = programs(replace(plan, settings=served, market=Market.REPLAY, replay=sessions))
    (collectors,) = (each for each in made if each.name == "collectors")
    urls = json.loads(collectors.environment["CROSSFILL_VENUE_URLS"])
    assert urls == {"okx": "ws://127.0.0.1:9999", "kraken": f"ws://127.0.0.1:{PORTS['kraken']}"}
