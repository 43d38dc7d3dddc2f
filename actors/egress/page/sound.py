"""The sound server: a pulseaudio with one sink that nobody hears, whose monitor is grabbed."""

from __future__ import annotations

import secrets

import trio

from actors.egress.page.place import Place
from supervisor.process import Command

SINK = "page"
RATE = 48000
# Bytes that are asked for at once: 20 ms.
FRAGMENT = RATE // 50 * 2 * 2

_READY = "Daemon startup complete"


class Sound:
    """What to run for it, and what it says."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.ready = trio.Event()
        self.server = f"unix:{place.path('sound')}"
        self.cookie = place.write("cookie", secrets.token_bytes(256))
        self._script = place.write(
            "sound.pa",
            f"load-module module-null-sink sink_name={SINK} rate={RATE} channels=2\n"
            f"load-module module-native-protocol-unix socket={place.path('sound')}"
            f" auth-cookie={self.cookie}\n"
            f"set-default-sink {SINK}\n".encode(),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need. With no cookie named, they would write one into their HOME."""
        return {"PULSE_SERVER": self.server, "PULSE_COOKIE": str(self.cookie)}

    def command(self, owner: str) -> Command:
        """Its process."""
        home = str(self._place.make("home"))
        return Command(
            [
                "pulseaudio",
                *("-n", "-F", str(self._script), "--daemonize=no", "--use-pid-file=no"),
                *("--exit-idle-time=-1", "--disallow-exit", "--disallow-module-loading"),
                *("--realtime=no", "--high-priority=no"),
                # Says when it is ready at this level.
                *("--log-target=stderr", "--log-level=info"),
            ],
            env=dict(
                [
                    self._place.variable,
                    ("HOME", home),
                    ("PULSE_RUNTIME_PATH", home),
                    ("XDG_RUNTIME_DIR", home),
                    ("DBUS_SESSION_BUS_ADDRESS", "disabled:"),
                ]
            ),
            cwd=self._place.folder,
            owner=owner,
            user=self._place.user,
        )

    def take_line(self, line: str) -> None:
        """Each line that it prints."""
        if _READY in line:
            self.ready.set()

    def audio_input(self) -> list[str]:
        """What ffmpeg is to grab."""
        # Nothing has to be found out about it.
        quick = ["-probesize", "32", "-analyzeduration", "0"]
        return [*quick, "-f", "pulse", "-fragment_size", str(FRAGMENT), "-i", f"{SINK}.monitor"]
