"""The state folder of `crossfill up`: one user at a time, its secrets, its ports."""

import fcntl
import json
import os
import secrets
import socket
from pathlib import Path
from typing import TextIO

from cli.valkey import free_port
from models.domain.errors import CrossfillError

LAYOUT = 1  # raised when the folder's files change their meaning; the database has revisions of its own


class HomeError(CrossfillError):
    """The state folder cannot be used; the sentence says what to do."""


class PortTakenError(CrossfillError):
    """Somebody else listens on a port that was asked for."""

    def __init__(self, host: str, port: int, setting: str) -> None:
        super().__init__(f"port {port} of {host} is taken: set {setting} to a free port, or end who has it")
        self.port = port
        self.setting = setting


def lock(home: Path) -> TextIO:
    """Make the state folder (mode 700) and lock it for this process; keep the file open as long as it is used.

    Raises HomeError where the folder cannot be made, is in use, or was written by a newer version.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        file = (home / "lock").open("a")
    except OSError as error:
        raise HomeError(f"{home} cannot be used ({error.strerror}): set CROSSFILL_HOME to a folder of yours") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        sentence = f"another `crossfill up` uses {home}: end it, or set CROSSFILL_HOME to another folder"
        raise HomeError(sentence) from error
    version = home / "version"
    text = version.read_text().strip() if version.exists() else str(LAYOUT)
    if not text.isdecimal() or int(text) > LAYOUT:
        file.close()
        raise HomeError(f"{home} is from a newer Crossfill: use that one, or set CROSSFILL_HOME to another folder")
    version.write_text(f"{LAYOUT}\n")
    return file


def secret(path: Path) -> str:
    """Return the secret that the file holds; make file (mode 600) and secret where there is none."""
    try:
        if text := path.read_text().strip():
            path.chmod(0o600)
            return text
    except FileNotFoundError:
        pass
    text = secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    return text


def checked_port(host: str, port: int, setting: str) -> int:
    """Return the port, or a free one where it is 0. Raises PortTakenError, HomeError where the host is unknown."""
    if port == 0:
        return free_port()
    try:
        family, _type, _protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise HomeError(f"{host} is not an address of this machine: set CROSSFILL_HOST to one") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise PortTakenError(host, port, setting) from error
    return port


def write_ports(home: Path, ports: dict[str, int]) -> None:
    """Write ports.json at once, so that a reader never sees half of it."""
    new = home / "ports.new"
    new.write_text(json.dumps(ports, indent=1) + "\n")
    new.replace(home / "ports.json")
