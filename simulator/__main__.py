"""`python -m simulator`: Binance and Coinbase on loopback. Prints its ports as one JSON object when it listens."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from types import ModuleType

from models.domain.instruments import INSTRUMENTS
from simulator import binance, coinbase, control
from simulator.market import Market
from simulator.replay import Replay, SessionError, find
from simulator.server import Venue

WIRES: dict[str, ModuleType] = {"binance": binance, "coinbase": coinbase}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulator", description=__doc__)
    for venue in WIRES:
        parser.add_argument(f"--{venue}-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="where the venues listen; the control stays on loopback")
    parser.add_argument("--control-port", type=int, default=0, help="faults are posted here")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--replay", type=Path, help="a folder of recorded sessions, or one session")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true", help="begin again when the session is over")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    products = {venue: list(INSTRUMENTS.products_of(venue)) for venue in WIRES}
    replays: dict[str, Replay] = {}
    if arguments.replay is not None:
        replays = find(arguments.replay, products, speed=arguments.speed, loop=arguments.loop)
    venues = [
        Venue(name, wire, replays.get(name) or Market(INSTRUMENTS, name, arguments.seed))
        for name, wire in WIRES.items()
    ]
    ports = {}
    for venue in venues:
        server = await venue.listen(getattr(arguments, f"{venue.name}_port"), arguments.host)
        ports[venue.name] = next(iter(server.sockets)).getsockname()[1]
    controls = await control.listen({venue.name: venue.faults for venue in venues}, arguments.control_port)
    ports["control"] = controls.sockets[0].getsockname()[1]
    print(json.dumps({"ports": ports, "replayed": sorted(replays)}), flush=True)  # noqa: T201 -- its answer
    tasks = [asyncio.create_task(venue.run()) for venue in venues]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    for task in tasks:
        task.cancel()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        asyncio.run(_run(_arguments()))
    except SessionError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
