"""The compact config file: what it may say, and what is said of one that is wrong."""

import json
import logging
from pathlib import Path

import pytest

from cli.legacy import Config, ConfigFileError, environment, read
from models.settings import Settings

WHOLE = {
    "ws_url": "wss://ws-feed.exchange.coinbase.com",
    "max_size": 200,
    "products": ["BTC-USD", "ETH-USD", "ETH-BTC"],
    "brokers": {"kafka-1:9092": ["BTC-USD", "ETH-USD"], "[::1]:9092": ["ETH-BTC"]},
    "log_level": "info",
    "kafka_time": 0.5,
}


def written(folder: Path, text: str) -> Path:
    path = folder / "conf.json"
    path.write_text(text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    """And each may be left out."""
    assert read(written(tmp_path, json.dumps(WHOLE))) == Config(
        ws_url="wss://ws-feed.exchange.coinbase.com",
        max_size=200,
        products=("BTC-USD", "ETH-USD", "ETH-BTC"),
        brokers={"kafka-1:9092": ("BTC-USD", "ETH-USD"), "[::1]:9092": ("ETH-BTC",)},
        log_level=logging.INFO,
        kafka_time=0.5,
    )
    assert read(written(tmp_path, "{}")) == Config()


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("max_size", "0", "0 is out of range; 1 to 1000000"),
        ("max_size", "-5", "-5 is out of range; 1 to 1000000"),
        ("max_size", "1000001", "1000001 is out of range; 1 to 1000000"),
        ("max_size", "200.0", "200.0 is not a whole number"),
        ("max_size", "true", "true is not a whole number"),
        ("max_size", "null", "null is not a whole number"),
        ("ws_url", '"https://a"', '"https://a" is no address; write wss://host or ws://host:port'),
        ("ws_url", "7", "7 is no address; write wss://host or ws://host:port"),
        ("ws_url", '"ws://a:99999"', '"ws://a:99999" is no address; write wss://host or ws://host:port'),
        ("ws_url", '"ws://[::1"', '"ws://[::1" is no address; write wss://host or ws://host:port'),
        ("products", "[]", '[] is no list of products; write ["BTC-USD", "ETH-USD"]'),
        ("products", '["BTC-USD", 7]', '["BTC-USD", 7] has 7, which is no product\'s id; write BTC-USD'),
        ("log_level", '"LOUD"', '"LOUD" is none of DEBUG, INFO, WARNING, ERROR, CRITICAL'),
        ("kafka_time", "-1", "-1 is out of range; 0 (each update) to 3600 seconds"),
        ("kafka_time", '"1"', '"1" is not a number of seconds'),
        ("kafka_time", "NaN", "NaN is out of range; 0 (each update) to 3600 seconds"),
        ("kafka_time", "1e999", "Infinity is out of range; 0 (each update) to 3600 seconds"),
        pytest.param("max_size", "9" * 5_000, "Infinity is not a whole number", id="endless"),
        ("brokers", "[]", '[] is no object; write {"host:9092": ["BTC-USD"]}'),
        ("max_sise", "1", "there is no such key; did you mean max_size?"),
        ("x", "1", "there is no such key; the keys are ws_url, max_size, products, brokers, log_level, kafka_time"),
    ],
)
def test_a_wrong_value_is_said_with_its_line_and_key(tmp_path: Path, key: str, value: str, sentence: str) -> None:
    """Whatever stands before it, brackets and quotes within texts included."""
    decoy = '"products": ["A-B"]' if key != "products" else '"log_level": "INFO"'
    path = written(tmp_path, f'{{\n  {decoy},\n\n  "{key}": {value}\n}}\n')
    with pytest.raises(ConfigFileError) as caught:
        read(path)
    assert str(caught.value) == f"{path}, line 4: {key}: {sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n "max_size": 5,\n 5: 6}', "line 3, column 2: expecting property name enclosed in double quotes"),
        ('{"max_size" 5}', "line 1, column 13: expecting ':' delimiter"),
        ("", "line 1, column 1: expecting value"),
        ("[]", 'line 1: it must be an object, as {"products": ["BTC-USD"]}'),
        ('{\n"max_size": 1,\n"max_size": 2}', "line 3: max_size: it is given twice, first in line 2"),
        (
            '{"products": ["A-B"],\n"brokers": {"a:1": ["A-B"],\n\n"a\\"{:": ["A-B"]}}',
            'line 4: a"{:: it is no broker; write host:port',
        ),
        (
            '{"products": ["A-B"],\n"brokers": {\n"a:1": ["A-C"]}}',
            "line 3: a:1: A-C is not among the products",
        ),
        (
            '{"products": ["A-B"],\n"brokers": {\n"a:1": 7}}',
            'line 3: a:1: 7 is no list of products; write ["BTC-USD", ',
        ),
        # A key of that name elsewhere, and texts that look like keys, are not taken for it.
        (
            '{"ws_url": "ws://max_size:1",\n"brokers": {},\n"products": ["A-B"], "max_size":\n0}',
            "line 3: max_size: 0 is out of range",
        ),
    ],
)
def test_a_file_that_is_no_such_object_is_said_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    """Line and column where it is no JSON; the line and the key where it is."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigFileError) as caught:
        read(path)
    assert str(caught.value).removeprefix(f"{path}, ").startswith(sentence)


def test_what_no_reader_could_take_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """No file, no text, endless nesting."""
    with pytest.raises(ConfigFileError, match=r"\(CONFIG_FILE\) cannot be read: No such file"):
        read(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigFileError, match="it is no UTF-8 text"):
        read(tmp_path / "bytes.json")
    with pytest.raises(ConfigFileError, match="its nesting is beyond all measure"):
        read(written(tmp_path, "[" * 200_000))


def test_the_whole_system_is_told_the_same_by_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key stands for settings that are sound; one that is set in the environment counts more than the file."""
    told = {**WHOLE, "brokers": {"kafka-1:9092": ["BTC-USD"], "[::1]:9092": ["BTC-USD"]}}
    path = written(tmp_path, json.dumps(told))
    made = environment(path, {"CROSSFILL_VWAP_WINDOW": "7"})
    assert "CROSSFILL_VWAP_WINDOW" not in made
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.venue_names == ("coinbase",)
    assert settings.venue_urls == {"coinbase": WHOLE["ws_url"]}
    assert settings.pairs == "BTC-USD,ETH-USD,ETH-BTC"
    assert settings.kafka == "kafka-1:9092,[::1]:9092"
    assert (settings.log_level, settings.vwap_topic_s) == ("INFO", 0.5)
    assert environment(path, {})["CROSSFILL_VWAP_WINDOW"] == "200"
    assert environment(written(tmp_path, "{}"), {}) == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n"products": ["FOO-USD"]}', "line 2: products: FOO-USD is for crossfill vwap alone; here there are "),
        (
            '{"products": ["BTC-USD", "ETH-USD"],\n"brokers":\n{"a:1": ["BTC-USD"], "b:1": ["ETH-USD"]}}',
            "line 2: brokers: its topics are at one cluster",
        ),
    ],
)
def test_what_the_whole_system_cannot_do_is_said_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    """And is no mistake for `crossfill vwap`."""
    path = written(tmp_path, text)
    assert read(path).products
    with pytest.raises(ConfigFileError) as caught:
        environment(path, {})
    assert str(caught.value).removeprefix(f"{path}, ").startswith(sentence)
