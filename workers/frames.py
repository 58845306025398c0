"""WebSocket frames as they come, many at once."""

import websocket

READ_BYTES = 65_536
MESSAGES = frozenset((websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY))
_PLAIN = frozenset(0x80 | opcode for opcode in MESSAGES)  # the first byte of a frame that is a whole message
_HEAD_MAX = 4  # of a plain frame
_LONGER = 126  # says that the length is in the next two bytes; what is above it says that a mask or eight bytes follow


class FrameSocket(websocket.WebSocket):
    """Reads the socket in large pieces, and takes from a piece all frames that are whole and plain at once.

    The library asks for a frame's header, length and payload one by one, which costs 11 us a frame where
    this costs 0.9. All else is left to it: control frames, fragments, very long frames, one that is not whole yet.
    """

    _buffer = b""
    _place = 0
    _midway = False  # the library has begun a message and waits for the rest

    def read(self) -> tuple[int, list[bytes]]:
        """Return the messages that have come, or a control frame, after it was answered, with its opcode.

        Waits for the first. Raises WebSocketException or OSError.
        """
        if not self._midway:
            if self._place >= len(self._buffer):
                self._fill()
            if found := self._plain():
                return websocket.ABNF.OPCODE_TEXT, found
        self._midway = True
        opcode, frame = self.recv_data(control_frame=True)
        self._midway = self.cont_frame.recving_frames is not None  # a control frame may come between fragments
        return opcode, [frame]

    def _plain(self) -> list[bytes]:
        """Take whole frames from the piece, as far as they are plain (RFC 6455, 5.2): final, unmasked, no extension."""
        piece, place, found = self._buffer, self._place, []
        end = len(piece)
        while end - place >= _HEAD_MAX and piece[place] in _PLAIN:
            start, length = place + 2, piece[place + 1]
            if length == _LONGER:
                start, length = place + 4, piece[place + 2] << 8 | piece[place + 3]
            elif length > _LONGER:
                break
            if start + length > end:
                break
            place = start + length
            found.append(piece[start:place])
        self._place = place
        return found

    def _recv(self, bufsize: int) -> bytes:
        if self._place >= len(self._buffer):
            self._fill()
        taken = self._buffer[self._place : self._place + bufsize]
        self._place += len(taken)
        return taken

    def _fill(self) -> None:
        self._buffer, self._place = super()._recv(READ_BYTES), 0  # type: ignore[no-untyped-call] # the library ships half its types
