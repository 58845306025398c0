"""`python -m simulator`: every venue on loopback, until SIGTERM or SIGINT.

Prints one JSON object when it listens: its ports by name (the venues' and control), which market
this is, and which venues are replayed. Seed, market and the folder of recordings come from the
environment (CROSSFILL_SEED, CROSSFILL_MARKET, CROSSFILL_MARKET_DATA) where no option names them.
"""

import argparse
import asyncio
import json
import logging
import math
import signal
import sys
import time
from pathlib import Path

from models.domain import quotes
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings
from simulator import control
from simulator.market import Market
from simulator.registry import WIRES
from simulator.replay import Replay, SessionError, find
from simulator.server import Venue, drive


def _port(text: str) -> tuple[str, int]:
    name, _, port = text.partition("=")
    if name not in WIRES:
        raise ValueError(text)
    return name, int(port)


def _speed(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(text)
    return value


def _arguments(settings: Settings) -> argparse.Namespace:
    replay = settings.market_data if settings.market is quotes.Market.REPLAY else None
    names = ", ".join(WIRES)
    parser = argparse.ArgumentParser(prog="python -m simulator", description=f"Simulated exchanges: {names}.")
    parser.add_argument(
        "--port",
        type=_port,
        action="append",
        default=[],
        metavar="VENUE=PORT",
        help="a venue's port; without it a free one",
    )
    parser.add_argument("--control-port", type=int, default=0, help="faults are posted here; always on loopback")
    parser.add_argument("--host", default="127.0.0.1", help="where the exchanges listen")
    parser.add_argument("--seed", type=int, default=settings.seed)
    parser.add_argument("--replay", type=Path, default=replay, help="a folder of recorded sessions, or one session")
    parser.add_argument("--speed", type=_speed, default=1.0)
    parser.add_argument("--loop", action="store_true", help="begin again when the session is over")
    return parser.parse_args()


def _replays(arguments: argparse.Namespace, settings: Settings) -> dict[str, Replay]:
    path = arguments.replay
    if path is None:
        return {}
    if not path.exists() and (settings.market_data / path).exists():
        path = settings.market_data / path
    products = {name: list(INSTRUMENTS.products_of(name)) for name in WIRES}
    return find(path, products, speed=arguments.speed, loop=arguments.loop)


async def _run(arguments: argparse.Namespace, replays: dict[str, Replay]) -> None:
    synthetic = [name for name in WIRES if name not in replays]
    market = Market(INSTRUMENTS, synthetic, arguments.seed, time.time_ns() // 1000)
    venues = [Venue(wire, replays.get(wire.name) or market.of_venue(wire.name)) for wire in WIRES.values()]
    chosen = dict(arguments.port)
    servers = {venue.name: await venue.listen(chosen.get(venue.name, 0), arguments.host) for venue in venues}
    controls = await control.listen({venue.name: venue.faults for venue in venues}, arguments.control_port)
    sockets = {name: next(iter(server.sockets)) for name, server in servers.items()}
    sockets["control"] = controls.sockets[0]
    ports = {name: held.getsockname()[1] for name, held in sockets.items()}
    kind = quotes.Market.REPLAY if replays else quotes.Market.SIMULATED
    print(json.dumps({"ports": ports, "market": kind, "replayed": sorted(replays)}), flush=True)  # noqa: T201 -- its answer
    driving = asyncio.create_task(drive(market, venues))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([driving, stopping], return_when=asyncio.FIRST_COMPLETED)
    for server in servers.values():
        server.close()
    await asyncio.gather(*(server.wait_closed() for server in servers.values()))
    controls.close()
    if driving.done():
        driving.result()
    driving.cancel()
    stopping.cancel()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # clients that are cut off are this program's business
    settings = Settings()
    arguments = _arguments(settings)
    try:
        asyncio.run(_run(arguments, _replays(arguments, settings)))
    except SessionError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot listen: {error}")


if __name__ == "__main__":
    main()
