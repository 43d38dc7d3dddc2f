"""Netstrings (`5:hello,`), decoded as they come. Pure."""

from __future__ import annotations

MAX_FRAME = 256 * 1024
_MAX_DIGITS = len(str(MAX_FRAME))


class FrameError(Exception):
    """What came is no netstring, or too large to be one of ours."""


class Decoder:
    """Feed it bytes in any pieces; it gives whole frames and keeps the rest."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def partial(self) -> bool:
        """Has a frame begun that is not complete?"""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now. Raises FrameError; the stream is lost then."""
        self._buffer += data
        frames = []
        while self._buffer:
            colon = self._buffer.find(b":", 0, _MAX_DIGITS + 1)
            head = bytes(self._buffer[: colon if colon >= 0 else _MAX_DIGITS + 1])
            if head and not head.isdigit():
                raise FrameError(f"expected a length, got: {head[:20]!r}")
            if colon < 0:
                if len(self._buffer) > _MAX_DIGITS:
                    raise FrameError("a length without an end")
                break
            if not head:
                raise FrameError("a frame without a length")
            size = int(head)
            if size > MAX_FRAME:
                raise FrameError(f"a frame of {size} bytes")
            end = colon + 1 + size
            if len(self._buffer) <= end:
                break
            if self._buffer[end] != ord(","):
                raise FrameError("a frame that does not end with a comma")
            frames.append(bytes(self._buffer[colon + 1 : end]))
            del self._buffer[: end + 1]
        return frames


def encode(payload: bytes) -> bytes:
    """One frame."""
    return b"%d:%s," % (len(payload), payload)
