"""Frames are read whole and in order, however the socket cuts them."""

import random
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

import pytest
import websocket
from websocket import ABNF

from workers.frames import FrameSocket

PING, PONG, CLOSE = ABNF.OPCODE_PING, ABNF.OPCODE_PONG, ABNF.OPCODE_CLOSE
TEXT, BINARY, CONT = ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY, ABNF.OPCODE_CONT


@pytest.fixture
def pair() -> Iterator[tuple[FrameSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    reader = FrameSocket(skip_utf8_validation=True, enable_multithread=True)
    reader.sock = ours
    reader.settimeout(0.002)
    yield reader, theirs
    ours.close()
    theirs.close()


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 65_536:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def some(chance: random.Random) -> Iterator[tuple[list[tuple[int, bytes]], bytes]]:
    """Yield what must be read, and the bytes that say it: plain frames mostly, and each kind that is not plain."""
    for number in range(200):
        text = b"%d:" % number + bytes(chance.choices(b"abc", k=chance.choice((0, 1, 120, 121, 122, 123, 200, 3_000))))
        match chance.randrange(20):
            case 0:
                yield [(PING, text[:125])], frame(PING, text[:125])
            case 1:
                first, rest = text[:2], text[2:]
                inside = frame(TEXT, first, final=False) + frame(PONG, b"!") + frame(CONT, rest)
                yield [(PONG, b"!"), (TEXT, text)], inside
            case 2:
                text *= 70_000 // len(text) + 1
                yield [(TEXT, text)], frame(TEXT, text)
            case 3:
                yield [(TEXT, b"")], frame(TEXT, b"")
            case 4:
                yield [(TEXT, text)], frame(BINARY, text)
            case _:
                yield [(TEXT, text)], frame(TEXT, text)


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_the_same_however_they_are_cut(pair: tuple[FrameSocket, socket.socket], seed: int) -> None:
    """Messages, fragments, pings and very long frames come whole and in order, also after a wait within one."""
    reader, server = pair
    chance = random.Random(seed)
    told = list(some(chance))
    wanted = [each for expected, _ in told for each in expected]
    stream = b"".join(sent for _, sent in told)
    cuts = sorted({0, len(stream), *(chance.randrange(len(stream)) for _ in range(len(stream) // 700))})
    got: list[tuple[int, bytes]] = []
    for start, end in pairwise(cuts):
        server.sendall(stream[start:end])
        if chance.random() < 0.1:
            got += waiting(reader)
    got += waiting(reader)
    assert [(TEXT if opcode == BINARY else opcode, each) for opcode, each in got] == wanted
    pongs = server.recv(1_000_000)
    assert pongs.count(b"\x8a") >= sum(opcode == PING for opcode, _ in wanted)


def test_a_masked_frame_and_a_bad_one_are_the_librarys_to_judge(pair: tuple[FrameSocket, socket.socket]) -> None:
    """What is read quickly is only what needs no judgement: a reserved bit is still refused."""
    reader, server = pair
    server.sendall(frame(TEXT, b"first") + b"\x81\x83\x01\x01\x01\x01\x60\x60\x60" + b"\xc1\x01x")
    assert [reader.read(), reader.read()] == [(TEXT, [b"first"]), (TEXT, [b"aaa"])]
    with pytest.raises(websocket.WebSocketProtocolException, match="rsv"):
        reader.read()


def waiting(reader: FrameSocket) -> list[tuple[int, bytes]]:
    got: list[tuple[int, bytes]] = []
    while True:
        try:
            opcode, frames = reader.read()
        except websocket.WebSocketTimeoutException:
            return got
        got += [(opcode, each) for each in frames]
