"""`crossfill consume` on a real server, found as the command line finds it, and on Kafka."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from typer.testing import CliRunner

from cli.main import app
from models.bus.client import connect
from models.bus.kafka import KafkaTopics
from models.bus.topics import Kind, Record, RedisTopics
from tests.kafka import running_kafka
from tests.services import ROOT

FIELDS = {"type": "vwap", "venue": "all", "pair": "ETH-USD"}


@pytest.fixture
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """The bus of a system that runs from a state folder."""
    url = urlsplit(redis_url)
    (tmp_path / "ports.json").write_text(json.dumps({"redis": url.port}))
    (tmp_path / "redis_password").write_text(f"{url.password}\n")
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path))
    for name in ("CROSSFILL_BROKER_URL", "CROSSFILL_BUS_URL"):
        monkeypatch.delenv(name, raising=False)
    made = connect(redis_url)
    yield made
    made.close()


def numbered(first: int, count: int, topic: str = "ETH-USD") -> list[Record]:
    told = (json.dumps({**FIELDS, "vwap": str(number)}).encode() for number in range(first, first + count))
    return [Record(topic, "ETH-USD", Kind.VWAP, value) for value in told]


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["consume", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def test_records_are_printed_and_the_command_ends_by_itself(client: redis.Redis) -> None:
    """After --count; any spelling of a pair is taken, and several topics at once."""
    RedisTopics(client).publish([*numbered(0, 100), *numbered(100, 1, "okx")])
    lines = run("--topic", "ethusd", "--from", "beginning", "--count", "70").splitlines()
    assert lines == [f"[ETH-USD] {number}" for number in range(70)]
    both = run("--topic", "ETH-USD", "--topic", "OKX", "--from", "beginning", "--count", "101", "--json").splitlines()
    told = [json.loads(line) for line in both]
    assert {each["topic"] for each in told} == {"ETH-USD", "okx"}
    assert told[0] == {"topic": "ETH-USD", "kind": "vwap", "key": "ETH-USD", "value": {**FIELDS, "vwap": "0"}}


def test_a_group_goes_on_where_it_was(client: redis.Redis) -> None:
    """A run reads no more than it prints."""
    RedisTopics(client).publish(numbered(0, 10))
    group = ("--topic", "ETH-USD", "--from", "beginning", "--group", "g", "--count")
    assert run(*group, "4").splitlines() == [f"[ETH-USD] {number}" for number in range(4)]
    assert run(*group, "6").splitlines() == [f"[ETH-USD] {number}" for number in range(4, 10)]
    assert client.xinfo_consumers("topic:ETH-USD", "g") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_quietly(client: redis.Redis, number: signal.Signals) -> None:
    """A member leaves its group then."""
    RedisTopics(client).publish(numbered(0, 1))
    command = [sys.executable, "-m", "cli", "consume", "--topic", "ETH-USD", "--from", "beginning", "--group", "g"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[ETH-USD] 0\n"
        process.send_signal(number)
        output, complaint = process.communicate(timeout=20)
    assert (process.returncode, output, complaint) == (0, "", "")
    assert client.xinfo_consumers("topic:ETH-USD", "g") == []


def test_what_cannot_be_consumed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the mend: near names, the settings, what to start."""
    assert "did you mean ETH-USD" in run("--topic", "ETH-USX", status=1)
    assert "did you mean coinbase" in run("--topic", "coinbse", status=1)
    assert "give `beginning` or `now`" in run("--topic", "okx", "--from", "noon", status=1)
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka://:1")
    assert run("--topic", "okx", status=1).startswith("crossfill: CROSSFILL_BUS_URL: each broker of kafka://")
    monkeypatch.setenv("CROSSFILL_BUS_URL", "redis://127.0.0.1:1/0")
    output = run("--topic", "okx", status=1)
    assert re.fullmatch("crossfill: Redis is not available: .*; start Crossfill with `make run`, or .*\n", output)


def test_a_kafka_that_is_away_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is an option that its client does not know; no password is repeated."""
    monkeypatch.setenv("CROSSFILL_BUS_URL", "kafka+ssl://user:s3cret@127.0.0.1:1")
    away = run("--topic", "okx", "--topic", "ETH-USD", "--group", "g", status=1)
    assert re.fullmatch("crossfill: Kafka is not available: .*Connection refused.*; start Crossfill .*\n", away)
    monkeypatch.setenv("CROSSFILL_KAFKA_OPTIONS", '{"sasl.pasword": "s3cret"}')
    wrong = run("--topic", "okx", status=1)
    assert wrong.endswith('No such configuration property: "sasl.pasword"\n')
    assert "s3cret" not in away + wrong


def test_kafka_is_read_where_the_topics_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the setting alone."""
    with running_kafka() as kafka:
        topics = KafkaTopics(kafka.brokers)
        topics.publish(numbered(0, 5))
        topics.close()
        assert topics.sent == 5
        monkeypatch.setenv("CROSSFILL_BUS_URL", f"kafka://{kafka.brokers}")
        lines = run("--topic", "ETH-USD", "--from", "beginning", "--count", "5").splitlines()
    assert lines == [f"[ETH-USD] {number}" for number in range(5)]
