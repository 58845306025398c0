import os
import subprocess
import sys
from pathlib import Path

from models.store.database import Database
from models.store.owners import owner_of_token
from models.store.shards import shards_count
from tests.services import ROOT


def migrate(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CROSSFILL_")}
    command = [sys.executable, "-m", "cli.migrate"]
    return subprocess.run(
        command, cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, check=False, timeout=30
    )


def prepared(url: str) -> int:
    """Return the number of shards of a database that knows the token."""
    database = Database.open(url)
    try:
        with database.read() as connection:
            owner = owner_of_token(connection, "the-token")
            assert owner is not None
            assert owner.role == "admin"
            return shards_count(connection)
    finally:
        database.close()


def test_a_database_is_made_ready(tmp_path: Path) -> None:
    """Tables, one shard on SQLite, and the owner of the token; a second time changes nothing."""
    url = f"sqlite:///{tmp_path / 'crossfill.db'}"
    for _time in range(2):
        done = migrate(CROSSFILL_DATABASE_URL=url, CROSSFILL_TOKEN="the-token")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert prepared(url) == 1


def test_postgresql_has_more_shards(postgres_url: str) -> None:
    """Sixteen, so that workers can share them."""
    assert migrate(CROSSFILL_DATABASE_URL=postgres_url, CROSSFILL_TOKEN="the-token").returncode == 0
    assert prepared(postgres_url) == 16


def test_what_is_wrong_is_one_sentence(tmp_path: Path) -> None:
    """Without a token, with a file that is no database, with an address that is none; no password is shown."""
    (tmp_path / "text").write_text("this is text, and not short: " * 100)
    cases = [
        ({"CROSSFILL_HOME": str(tmp_path)}, "CROSSFILL_TOKEN is not set"),
        ({"CROSSFILL_DATABASE_URL": f"sqlite:///{tmp_path / 'text'}"}, "file is not a database"),
        (
            {"CROSSFILL_DATABASE_URL": "postgres+wrong://user:password@host"},
            "CROSSFILL_DATABASE_URL is not the address",
        ),
        (
            {"CROSSFILL_DATABASE_URL": "postgresql+psycopg://user:password@127.0.0.1:1/x"},
            "the database is not available",
        ),
    ]
    for variables, sentence in cases:
        token = {} if "CROSSFILL_HOME" in variables else {"CROSSFILL_TOKEN": "the-token"}
        done = migrate(**variables, **token)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert sentence in done.stderr
        assert ":password@" not in done.stderr
