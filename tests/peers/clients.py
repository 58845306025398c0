"""The Python clients of others: an environment of their own, made on first use, and how they are run."""

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from tests.peers.simulated import Said
from tests.services import ROOT

SCRIPTS = ROOT / "tests" / "peers" / "python"
ENVIRONMENTS = ROOT / ".venv" / "peers"  # `make clean` removes them
INSTALL_S_MAX = 300
READ_S_MAX = 60  # where too little arrives; a few seconds are usual
QUOTES_MIN, TRADES_MIN = 40, 10

_missing: dict[Path, str] = {}  # an environment -> why it cannot be had


def interpreter(lock: str, python: str = sys.executable) -> Path:
    """Return the Python that has a lock file's packages, made with `python`. Skips the test where it cannot be had."""
    path = SCRIPTS / lock
    version = subprocess.run([python, "-VV"], capture_output=True, check=True).stdout
    home = ENVIRONMENTS / hashlib.sha256(path.read_bytes() + version).hexdigest()[:16]
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # another run may be making it
        if home not in _missing and not (home / "made").exists():
            _make(home, path, python)
    if home in _missing:
        pytest.skip(_missing[home])
    return home / "bin" / "python"


def _make(home: Path, path: Path, python: str) -> None:
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1"]
    commands: list[list[str | Path]] = [
        [python, "-m", "venv", "--clear", home],
        [home / "bin" / "python", *pip, "--only-binary", ":all:", "--require-hashes", "--requirement", path],
    ]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False)
            assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr
            if done.returncode:
                why = (done.stderr or done.stdout or "no reason given").strip().splitlines()[-1]
                _missing[home] = f"{path.name} cannot be installed: {why}"
                return
    except subprocess.TimeoutExpired:
        _missing[home] = f"{path.name} cannot be installed within {INSTALL_S_MAX} s"
        return
    (home / "made").touch()


def python_since(major: int, minor: int) -> str | None:
    """Return a Python of at least this version: the running one, or one on the path, or one of pyenv's."""
    if sys.version_info >= (major, minor):
        return sys.executable
    found = [name for newer in (2, 1, 0) if (name := which(f"python{major}.{minor + newer}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += map(str, pyenv.glob(f"versions/{major}.*/bin/python"))
    test = f"import sys, ensurepip, venv; sys.exit(sys.version_info < ({major}, {minor}))"
    return next((name for name in found if _runs([name, "-c", test])), None)


def has(python: Path, package: str) -> bool:
    """Say whether a Python has a package."""
    return _runs([python, "-c", f"import {package}"])


def _runs(command: list[str | Path]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def received(
    command: Iterable[str | Path], folder: Path, kinds: Iterable[str], products: int, **more: str
) -> list[Said]:
    """Run a client until it has printed enough of each kind ("quote", "trade"), and return all that it printed.

    `more` joins its environment. Fails where it writes anything to its standard error.
    """
    enough = {"quote": QUOTES_MIN, "trade": TRADES_MIN}
    wanted = {kind: enough[kind] for kind in kinds}
    printed: list[Said] = []
    complaints = folder / "stderr"
    with complaints.open("w") as errors, _running(command, errors, folder, more) as lines:
        for line in lines:
            printed.append(json.loads(line))
            counts = Counter(said["kind"] for said in printed)
            seen = {said["product"] for said in printed}
            if len(seen) == products and all(counts[kind] >= least for kind, least in wanted.items()):
                break
    assert not complaints.read_text()
    counts = Counter(said["kind"] for said in printed)
    assert set(counts) == set(wanted)
    assert all(counts[kind] >= least for kind, least in wanted.items()), counts
    return printed


@contextlib.contextmanager
def _running(command: Iterable[str | Path], errors: Any, folder: Path, more: dict[str, str]) -> Iterator[Iterable[str]]:
    environment = {**os.environ, **more, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    process = subprocess.Popen(
        list(command), cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def by_product(printed: Iterable[Said], kind: str) -> dict[str, list[Said]]:
    """Return what was printed of a kind, by product."""
    found: dict[str, list[Said]] = {}
    for said in printed:
        if said["kind"] == kind:
            rest = {name: text for name, text in said.items() if name not in ("kind", "product")}
            found.setdefault(said["product"], []).append(rest)
    return found


def as_sent(got: Said, sent: Said, number: Callable[[str], object]) -> bool:
    """Say whether what was received is what was sent, each number read by `number`."""
    words = ("id", "side")
    return all(
        sent[name] == text if name in words else number(sent[name]) == number(text) for name, text in got.items()
    )


def is_run(got: list[Said], sent: list[Said], number: Callable[[str], object]) -> bool:
    """Say whether what was received is, without a hole, some of what was sent."""
    starts = range(len(sent) - len(got) + 1)
    return any(all(map(as_sent, got, sent[start:], [number] * len(got))) for start in starts)


def is_in_order(got: list[Said], sent: list[Said], number: Callable[[str], object]) -> bool:
    """Say whether what was received was sent, in this order; some of it may be missing."""
    rest = iter(sent)
    return all(any(as_sent(each, candidate, number) for candidate in rest) for each in got)
