"""Wake-ups over a real broker, and over one that is away."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from models.bus.client import connect
from models.bus.names import orders_queue
from models.bus.wakeups import PAUSE_S, Wakeups, new_task_id
from tests.services import running_valkey


@pytest.fixture
def dead_url() -> Iterator[str]:
    """The address of a broker that refuses connections: bound, and not listening."""
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{held.getsockname()[1]}/0"


def test_each_shard_is_woken_once(redis_url: str) -> None:
    """One message a shard, in its own queue, with the task's id and the shard as its only argument."""
    with closing(Wakeups(redis_url)) as wakeups, closing(connect(redis_url)) as client:
        tasks = {0: new_task_id(), 3: new_task_id()}
        assert wakeups.publish(tasks)
        for shard, task_id in tasks.items():
            raw = client.rpop(orders_queue(shard))
            assert isinstance(raw, bytes)
            message = json.loads(raw)
            assert (message["headers"]["task"], message["headers"]["id"]) == ("order.place", task_id)
            assert message["headers"]["kwargsrepr"] == f"{{'shard': {shard}}}"
            assert client.llen(orders_queue(shard)) == 0


def test_a_broker_that_is_away_costs_next_to_nothing(dead_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It says no at once, keeps quiet for a while, and complains once an outage."""
    with closing(Wakeups(dead_url)) as wakeups:
        assert not wakeups.publish({0: new_task_id()})
        again = time.thread_time()  # whoever tries a hundred times uses more
        assert not any(wakeups.publish({0: new_task_id()}) for _ in range(100))
        assert time.thread_time() - again < 0.1
        time.sleep(PAUSE_S)
        assert not wakeups.publish({0: new_task_id()})
    assert len(caplog.records) == 1


def test_a_broker_that_came_back_is_used_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The connection of before is dead; within two tries the next one is found."""
    with running_valkey(tmp_path_factory.mktemp("first")) as url:
        wakeups = Wakeups(url)
        assert wakeups.publish({0: new_task_id()})
    assert not wakeups.publish({0: new_task_id()})
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    password = url.split(":")[2].split("@")[0]
    with running_valkey(tmp_path_factory.mktemp("second"), port, password), closing(wakeups):
        deadline = time.monotonic() + 30 * PAUSE_S
        while not wakeups.publish({0: new_task_id()}):
            assert time.monotonic() < deadline
            time.sleep(0.1)
