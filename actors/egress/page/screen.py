"""The virtual screen: an Xvfb with a cookie of its own, and no network.

The display's number is chosen by Xvfb itself (`-displayfd`): it claims one by binding an abstract
socket, which two cannot do at once, and writes no lock file. The screen is a pixel larger than the
picture: Chromium makes a window as large as the screen one pixel smaller, a black line.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
from pathlib import Path

import trio

from actors.egress.page.place import Place
from supervisor.process import Command

SOCKETS = Path("/tmp/.X11-unix")  # noqa: S108 - the place is X's, not ours

_ANY_DISPLAY = 0xFFFF  # FamilyWild in Xauth.h
_COOKIE = b"MIT-MAGIC-COOKIE-1"


class Screen:
    """What to run for it, and what it says."""

    def __init__(self, place: Place, width: int, height: int) -> None:
        self._place = place
        self._size = (width, height)
        self._number: int | None = None
        self.ready = trio.Event()
        self.authority = place.write("xauthority", _authority(secrets.token_bytes(16)))

    @property
    def display(self) -> str:
        """As in DISPLAY, once it is ready."""
        assert self._number is not None
        return f":{self._number}.0"

    def command(self, owner: str) -> Command:
        """Its process."""
        if os.geteuid() == 0:
            # Xvfb makes it only as root. Without it, there is the abstract socket alone.
            SOCKETS.mkdir(exist_ok=True)
            if SOCKETS.stat().st_uid == 0:
                SOCKETS.chmod(0o1777)
        width, height = self._size
        return Command(
            [
                "Xvfb",
                *("-displayfd", "1"),
                *("-screen", "0", f"{width + 1}x{height + 1}x24"),
                *("-auth", str(self.authority)),
                *("-nolisten", "tcp"),
                # No blanking, and no reset when its last client goes.
                *("-s", "0", "-noreset"),
            ],
            env=dict([self._place.variable, ("HOME", str(self._place.folder))]),
            cwd=self._place.folder,
            owner=owner,
            user=self._place.user,
        )

    def take_line(self, line: str) -> None:
        """The number is the only line that is one."""
        if self._number is None and line.isdigit():
            self._number = int(line)
            self.ready.set()

    def video_input(self, frame_rate: int) -> list[str]:
        """What ffmpeg is to grab."""
        width, height = self._size
        return [
            # Nothing has to be found out about it: looking at twenty pictures, as ffmpeg does, is
            # a second in which the sound is not grabbed yet.
            *("-probesize", "32", "-analyzeduration", "0", "-fpsprobesize", "0"),
            *("-f", "x11grab", "-draw_mouse", "0", "-framerate", str(frame_rate)),
            *("-video_size", f"{width}x{height}", "-i", f"{self.display}+0,0"),
        ]

    def remove_socket(self) -> None:
        """What it leaves when it is killed. Another may have the number by now: then it answers."""
        if self._number is None:
            return
        path = SOCKETS / f"X{self._number}"
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                return


def _authority(cookie: bytes) -> bytes:
    """An .Xauthority file with one entry, good for any display (Xau(3): big-endian, counted)."""
    fields = (b"", b"", _COOKIE, cookie)
    return struct.pack(">H", _ANY_DISPLAY) + b"".join(
        struct.pack(">H", len(field)) + field for field in fields
    )
