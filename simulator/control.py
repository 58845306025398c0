"""Faults over HTTP, on a loopback port of their own.

    POST /faults {"venue": "binance", "fault": "stall", "seconds": 5}

The faults and their options (`seconds`, `delay_s`, `count`, `symbol`) are those of simulator.faults.
"""

import asyncio
import json
from collections.abc import Mapping

from simulator.faults import FAULTS, Faults

BODY_MAX = 4_096
WITHIN_S = 5
USAGE = f"fault: one of {', '.join(FAULTS)}; with seconds, delay_s or count, each a number, or symbol"


async def listen(faults: Mapping[str, Faults], port: int) -> asyncio.Server:
    """Listen on loopback; port 0 takes a free one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, answer = await asyncio.wait_for(_answer(reader, faults), WITHIN_S)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            status, answer = "400 Bad Request", {"error": "no complete request came"}
        except OSError:
            writer.close()
            return
        body = json.dumps(answer).encode() + b"\n"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port)


async def _answer(reader: asyncio.StreamReader, faults: Mapping[str, Faults]) -> tuple[str, dict[str, object]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
    lines = head.split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    if not lines[0].startswith("POST /faults "):
        return "404 Not Found", {"error": "POST /faults is all there is"}
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or int(length) > BODY_MAX:
        return "400 Bad Request", {"error": f"Content-Length must be a number up to {BODY_MAX}"}
    try:
        request = json.loads(await reader.readexactly(int(length)))
        venue, fault = request.pop("venue"), request.pop("fault")
        faults[venue].inject(fault, **request)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        usage = f"venue: one of {', '.join(faults)}; {USAGE}"
        return "400 Bad Request", {"error": f"{type(error).__name__}: {error}", "usage": usage}
    return "200 OK", {"venue": venue, "fault": fault, **request}
