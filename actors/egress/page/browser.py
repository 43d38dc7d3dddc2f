"""Chromium: its arguments, its environment, and what it says while it starts.

The program itself is run, not Debian's script, which loads extensions and needs a shell. It gets no
PATH that leads anywhere: a page could start programs by addresses such as `mailto:` otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec
import trio

from actors.egress.page.gate import Gate
from actors.egress.page.place import Place
from actors.egress.page.request import PageRequest
from actors.egress.page.screen import Screen
from actors.egress.page.sound import Sound
from supervisor.process import Command

PROGRAM = Path("/usr/lib/chromium/chromium")
# Less shared memory than this, and pages crash for want of it; it then lies in files.
SHARED_MEMORY = 512 * 1024 * 1024
CACHE_BYTES = 64 * 1024 * 1024

_LISTENING = re.compile(r"DevTools listening on ws://127\.0\.0\.1:(\d+)(/\S+)")
# `No usable sandbox!`, `Failed to move to new namespace`, `… without --no-sandbox is not supported`
_SANDBOX_REFUSED = re.compile(r"no usable sandbox|new namespace|without --no-sandbox", re.I)

_OFF = (
    # Pages of the browser's own, each a process.
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "GlobalMediaControls",
    "HardwareMediaKeyHandling",
    "MediaRouter",
    # What it would fetch, or show, of its own accord.
    "AutofillServerCommunication",
    "CertificateTransparencyComponentUpdater",
    "HttpsUpgrades",
    "OptimizationHints",
    "Translate",
)

_FLAGS = (
    "--kiosk",
    "--start-fullscreen",
    "--window-position=0,0",
    "--hide-scrollbars",
    "--autoplay-policy=no-user-gesture-required",
    "--force-color-profile=srgb",
    # Nothing over the picture, and nobody to answer a question.
    "--deny-permission-prompts",
    "--disable-infobars",
    "--disable-prompt-on-repost",
    "--disable-session-crashed-bubble",
    "--disable-search-engine-choice-screen",
    "--hide-crash-restore-bubble",
    "--no-default-browser-check",
    "--no-first-run",
    "--noerrdialogs",
    "--password-store=basic",
    # Nothing is fetched but what the page asks for.
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--metrics-recording-only",
    "--no-pings",
    f"--disable-features={','.join(_OFF)}",
    # It is looked at although nobody sees it.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    f"--disk-cache-size={CACHE_BYTES}",
)
_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
_NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")

# A page could cover the picture with the dialog for printing; there is no printer.
_PREFERENCES = {"printing": {"enabled": False}}


def find_program() -> str:
    """Chromium's own program."""
    return str(PROGRAM) if PROGRAM.exists() else shutil.which("chromium") or str(PROGRAM)


class Browser:
    """One start of it: what to run, and what it says."""

    def __init__(
        self, place: Place, wanted: PageRequest, screen: Screen, sound: Sound, program: str
    ) -> None:
        self._place = place
        self._wanted = wanted
        self._screen = screen
        self._sound = sound
        self._program = program
        self.port = 0
        self.resource = ""
        self.sandbox_refused = False
        # It listens, or it has ended.
        self.decided = trio.Event()

    def command(self, owner: str, gate: Gate, sandbox: bool) -> Command:
        """Its process; all its connections go through the gate."""
        profile = self._place.make("profile/Default")
        self._place.write("profile/Default/Preferences", msgspec.json.encode(_PREFERENCES))
        wanted = self._wanted
        return Command(
            [
                self._program,
                *_FLAGS,
                *(_WEBGL if wanted.webgl else _NO_WEBGL),
                f"--window-size={wanted.width},{wanted.height}",
                f"--user-data-dir={profile.parent}",
                f"--proxy-server={_proxies(gate)}",
                # Also to this machine, which would go round it otherwise.
                "--proxy-bypass-list=<-loopback>",
                # WebRTC sends UDP past a proxy where it may.
                "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
                "--remote-debugging-port=0",
                *(() if _much_shared_memory() else ("--disable-dev-shm-usage",)),
                *(() if sandbox else ("--no-sandbox", "--test-type")),
                "about:blank",
            ],
            env=self._environment(),
            cwd=self._place.folder,
            owner=owner,
            user=self._place.user,
        )

    def _environment(self) -> dict[str, str]:
        home = str(self._place.make("home"))
        return {
            **self._sound.environment,
            **dict([self._place.variable]),
            "DISPLAY": self._screen.display,
            "XAUTHORITY": str(self._screen.authority),
            "HOME": home,
            "XDG_RUNTIME_DIR": home,
            "TMPDIR": str(self._place.make("tmp")),
            "PATH": str(self._place.path("no-programs")),
            "DBUS_SESSION_BUS_ADDRESS": "disabled:",
            **({"USER": self._place.user, "LOGNAME": self._place.user} if self._place.user else {}),
        }

    def take_line(self, line: str) -> None:
        """Each line that it prints."""
        if self.decided.is_set():
            return
        if found := _LISTENING.search(line):
            self.port, self.resource = int(found[1]), found[2]
            self.decided.set()
        elif _SANDBOX_REFUSED.search(line):
            self.sandbox_refused = True


def _proxies(gate: Gate) -> str:
    requests, websockets = (f"socks5://127.0.0.1:{n}" for n in (gate.port, gate.websocket_port))
    # What is neither http nor https is a WebSocket.
    return f"http={requests};https={requests};socks={websockets}"


def _much_shared_memory() -> bool:
    try:
        found = os.statvfs("/dev/shm")  # noqa: S108 - asked about, not written to
    except OSError:
        return False
    return found.f_bavail * found.f_frsize >= SHARED_MEMORY
