"""The running system, as the command line finds it: its addresses, its token, its answers and complaints."""

import json
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import typer

from models.settings import Settings

TIMEOUT_S = 40
PEEK_S = 2

Incoming = tuple[str, dict[str, Any]]


def fail(sentence: str) -> NoReturn:
    """Say on standard error what is wrong and end with status 1."""
    typer.echo(f"crossfill: {sentence}", err=True)
    raise typer.Exit(1)


def _json(answer: IO[bytes]) -> Any:  # noqa: ANN401 -- JSON
    return json.load(answer, parse_float=str)


@dataclass(frozen=True)
class Remote:
    """Where the API and the notifier are, and the token."""

    api: str
    notifier: str
    token: str | None

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        also: Collection[int] = (),
        read: Callable[[IO[bytes]], Any] = _json,
    ) -> Any:  # noqa: ANN401 -- the answer's JSON
        """Return the JSON that a request is answered with, or what `read` makes of it; end with a sentence if refused.

        A refusal with a status that is in `also` is returned like an answer.
        """
        data = json.dumps(body).encode() if body is not None else None
        try:
            request = Request(self.api + path, data, self._headers(), method=method)  # noqa: S310 -- the user's own address
            with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 -- likewise
                return read(answer)
        except HTTPError as error:
            if error.code in also:
                return read(error)
            fail(_complaint(error))
        except (URLError, OSError, ValueError) as error:
            fail(f"Crossfill does not answer at {self.api} ({error}); start it with `make run`")

    def peek(self, path: str) -> Any | None:  # noqa: ANN401 -- likewise
        """Return the JSON of a GET, or None where it cannot be had at once."""
        try:
            request = Request(self.api + path, headers=self._headers())  # noqa: S310 -- likewise
            with urlopen(request, timeout=PEEK_S) as answer:  # noqa: S310 -- likewise
                return json.load(answer, parse_float=str)
        except (OSError, ValueError):
            return None

    def _headers(self) -> dict[str, str]:
        signed = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return {"Content-Type": "application/json", **signed}


def _complaint(error: HTTPError) -> str:
    try:
        answer = json.load(error)
    except ValueError:
        return f"the answer was {error.code} {error.reason}"
    if isinstance(answer.get("error"), dict):
        return str(answer["error"].get("message"))
    near = [name for field in answer.get("errors", []) for name in field.get("near", [])]
    hint = f" (try {', '.join(near)})" if near and "did you mean" not in answer.get("detail", "") else ""
    return f"{answer.get('detail', error.reason)}{hint}"


def remote() -> Remote:
    """Return the system that the settings name, or the one that runs from this folder."""
    settings = Settings()
    ports = {"api": settings.api_port, "notifier": settings.notifier_port}
    running = settings.home / "ports.json"
    # Ports that are named in the environment count more than those of a running system.
    if running.exists():
        written = json.loads(running.read_text())
        ports = {
            name: port if f"CROSSFILL_{name.upper()}_PORT" in os.environ else written.get(name, port)
            for name, port in ports.items()
        }
    token = settings.token.get_secret_value() if settings.token else None
    kept = settings.home / "token"
    if token is None and kept.exists():
        token = kept.read_text().strip()
    return Remote(
        api=(settings.url or f"http://127.0.0.1:{ports['api']}").rstrip("/"),
        notifier=(settings.notifier_url or f"http://127.0.0.1:{ports['notifier']}").rstrip("/"),
        token=token,
    )


class _InOrder:
    """Hands events on in the order of their numbers, which have no gaps.

    Python's client gives each packet a thread of its own, and they may overtake one another.
    """

    def __init__(self, incoming: "Queue[Incoming]", last_seq: int | None) -> None:
        self._incoming = incoming
        self._next = None if last_seq is None else last_seq + 1
        self._early: dict[int, Incoming] = {}
        self._lock = threading.Lock()

    def put(self, name: str, message: dict[str, Any]) -> None:
        with self._lock:
            if name == "resync":
                self._next = None
            elif name == "ready" and self._next is None:
                self._next = message["last_seq"] + 1
            if "seq" in message:
                self._early[message["seq"]] = (name, message)
            else:
                self._incoming.put((name, message))
            while self._next is not None and (found := self._early.pop(self._next, None)):
                self._incoming.put(found)
                self._next += 1


@contextmanager
def listening(found: Remote, last_seq: Callable[[], int | None], *, ready: bool = True) -> Iterator[Any]:
    """Yield a queue of the events as they come: (name, message). It reconnects with the cursor by itself."""
    import socketio  # noqa: PLC0415 -- only who listens pays for it

    if not found.token:
        fail("there is no token: set CROSSFILL_TOKEN, or run it where .crossfill/token is")
    incoming: Queue[Incoming] = Queue()
    client = socketio.Client(reconnection_delay_max=5)
    client.on("*", _InOrder(incoming, last_seq()).put)
    client.on("connect_error", lambda reason: incoming.put(("refused", {"reason": reason})))

    def auth() -> dict[str, Any]:
        cursor = last_seq()
        return {"token": found.token} if cursor is None else {"token": found.token, "last_seq": cursor}

    try:
        client.connect(found.notifier, auth=auth, transports=["websocket"], wait_timeout=5)
        if ready:
            while incoming.get(timeout=10)[0] != "ready":
                pass
    except (socketio.exceptions.ConnectionError, Empty) as error:
        client.disconnect()
        reasons = [message["reason"] for name, message in list(incoming.queue) if name == "refused"]
        said = reasons[-1].get("message", error) if reasons and isinstance(reasons[-1], dict) else error
        fail(f"the notifier at {found.notifier} refuses or does not answer: {said}")
    try:
        yield incoming
    finally:
        client.disconnect()
