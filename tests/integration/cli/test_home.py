import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cli import home as home_folder
from cli.home import HomeError, PortTakenError, checked_port, lock, secret
from models.store.schema import migrate
from tests.services import ROOT

FREE = {"CROSSFILL_API_PORT": "0", "CROSSFILL_NOTIFIER_PORT": "0", "CROSSFILL_FLOWER_PORT": "0"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_and_its_secrets_are_the_users_alone(tmp_path: Path) -> None:
    """Modes are 700 and 600, whatever they were; a secret stays the same."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    with lock(home):
        token = secret(home / "token")
        assert len(token) >= 40
        (home / "token").chmod(0o644)
        assert secret(home / "token") == token
    assert mode(home) == 0o700
    assert mode(home / "token") == 0o600


def test_one_user_at_a_time(tmp_path: Path) -> None:
    """A second one is told so; after the first it may."""
    with lock(tmp_path), pytest.raises(HomeError, match="another `crossfill up` uses"):
        lock(tmp_path)
    lock(tmp_path).close()


@pytest.mark.parametrize("text", ["2", "99", "soon"])
def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path, text: str) -> None:
    """It says so in a sentence, and writes nothing over it."""
    (tmp_path / "version").write_text(text)
    with pytest.raises(HomeError, match="is from a newer Crossfill"):
        lock(tmp_path)
    assert (tmp_path / "version").read_text() == text


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    """The sentence names the setting to change."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="set CROSSFILL_HOME to a folder of yours"):
        lock(tmp_path / "file")


def test_a_taken_port_names_the_setting_to_change() -> None:
    """A port that somebody listens on is refused before anything starts; 0 picks a free one."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=f"port {port} of 127.0.0.1 is taken: set CROSSFILL_API_PORT"):
            checked_port("127.0.0.1", port, "CROSSFILL_API_PORT")
    assert checked_port("127.0.0.1", port, "CROSSFILL_API_PORT") == port
    assert checked_port("127.0.0.1", 0, "CROSSFILL_API_PORT") > 0
    with pytest.raises(HomeError, match="set CROSSFILL_HOST"):
        checked_port("no.such.host.invalid", 8000, "CROSSFILL_API_PORT")


def test_ports_are_written_at_once(tmp_path: Path) -> None:
    """Readers find a whole file."""
    home_folder.write_ports(tmp_path, {"api": 1})
    assert json.loads((tmp_path / "ports.json").read_text()) == {"api": 1}


def refused(home: Path, *arguments: str, before: str = "", **variables: str) -> str:
    """Run `up` where it cannot work and return the one line that it says."""
    code = f"{before}import typer; from cli.up import up; app = typer.Typer(); app.command()(up); app()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "CROSSFILL_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("crossfill up: ")
    return done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        (["--live", "--replay", "."], {}, "--live and --replay exclude each other"),
        (["--replay", "/no/such/path"], {}, "/no/such/path is not there"),
        (["--replay", "cli"], {}, "no session of binance or "),
        ([], {"CROSSFILL_API_PORT": "99999"}, "CROSSFILL_API_PORT: input should be less than or equal to 65535"),
        ([], {"CROSSFILL_API_PORT": "18000", "CROSSFILL_FLOWER_PORT": "18000"}, "must differ"),
        ([], {"CROSSFILL_DATABASE_URL": "nonsense://user:password@host"}, "CROSSFILL_DATABASE_URL is not the address"),
    ],
)
def test_up_refuses_in_one_sentence(
    tmp_path: Path, arguments: list[str], variables: dict[str, str], sentence: str
) -> None:
    """What cannot work is said in one line, with status 1."""
    assert sentence in refused(tmp_path / "home", *arguments, **(FREE | variables))


def test_up_leaves_a_database_of_a_newer_version_alone(tmp_path: Path) -> None:
    """It says so and changes nothing."""
    url = f"sqlite:///{tmp_path / 'crossfill.db'}"
    migrate(url)
    with closing(sqlite3.connect(tmp_path / "crossfill.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
        connection.commit()
    sentence = refused(tmp_path, **FREE)
    assert "newer version" in sentence
    assert "from-the-future" in sentence
    assert "CROSSFILL_HOME" in sentence


def test_up_says_that_its_port_is_taken(tmp_path: Path) -> None:
    """Before anything has started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        sentence = refused(tmp_path, **(FREE | {"CROSSFILL_NOTIFIER_PORT": port}))
    assert f"port {port} of 127.0.0.1 is taken: set CROSSFILL_NOTIFIER_PORT to a free port" in sentence
    assert not (tmp_path / "crossfill.db").exists()


def test_up_says_that_its_server_is_missing(tmp_path: Path) -> None:
    """A machine that the bundled server is not made for is one sentence with the mend."""
    sentence = refused(tmp_path, before="import platform; platform.machine = lambda: 'sparc'; ", **FREE)
    assert "set CROSSFILL_BROKER_URL to a Redis" in sentence
