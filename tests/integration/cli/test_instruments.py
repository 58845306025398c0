import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from models.domain.instruments import INSTRUMENTS
from models.domain.listings import EVIDENCE
from models.settings import Settings
from models.store.database import Database
from models.store.schema import fix_shards
from tests.integration.api.serving import serving


@pytest.fixture(autouse=True)
def _served(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    database = Database.open(database_url)
    fix_shards(database, 1)
    database.close()
    monkeypatch.setenv("CROSSFILL_DATABASE_URL", database_url)
    monkeypatch.setenv("CROSSFILL_BROKER_URL", redis_url)
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    with serving(Settings()) as client:
        monkeypatch.setenv("CROSSFILL_URL", str(client.base_url))
        yield


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["instruments", *arguments])
    assert done.exit_code == status
    return done.output


def test_all_pairs_are_a_table() -> None:
    """A line each, with the steps and the venues."""
    lines = run().splitlines()
    for instrument in INSTRUMENTS:
        (line,) = (line for line in lines if line.split()[:1] == [instrument.symbol])
        assert all(product.venue in line for product in instrument.products)
    assert "deribit (index)" in next(line for line in lines if "BTC-USD " in line)


def test_a_pair_s_products_are_a_table() -> None:
    """With their evidence; any spelling is taken."""
    table = run("xbt/usd")
    assert "BTC-USD, steps 0.01 and 0.00000001, simulated market" in table
    assert EVIDENCE["kraken-2021"] in table


def test_the_answer_as_it_is() -> None:
    """With --json."""
    assert json.loads(run("LTCBTC", "--json"))["pair"] == "LTC-BTC"
    assert len(json.loads(run("--json"))["instruments"]) == len(list(INSTRUMENTS))


def test_an_unknown_pair_is_one_sentence() -> None:
    """With what is near."""
    assert run("LTCBTX", status=1).startswith("crossfill: unknown symbol 'LTCBTX'; did you mean LTC-BTC")
