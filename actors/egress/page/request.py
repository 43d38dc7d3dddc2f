"""What is asked of a page, what it tells, and how it fails; and what of a text may be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

MAX_TEXT = 500

_ADDRESS = re.compile(r"\b(?:https?|wss?|ftp|blob:https?)://[^\s'\"<>`]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page, how large in pixels, and when it is ready.

    `ready="load"`: when it has fired `load`. When only some resource hangs and the document itself
    is there, it counts as ready at the end of `ready_timeout` (seconds), and an event says so: a
    counter that does not answer must not cost a recording. `ready="console"`: when it writes
    `switchboard:ready` to its console, and no sooner.
    """

    url: str
    width: int
    height: int
    webgl: bool = False
    ready: Literal["load", "console"] = "load"
    ready_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class PageEvent:
    """Something that the page did: JSON-ready, without secrets, texts cut.

    `console` level, text · `error` text · `dialog` type, text · `window` url · `download` url ·
    `blocked` url, type · `crash` url (of a frame; that of the page is PageLost) · `slow` text ·
    `warning` text · `left_out` kind, count: as many events of that kind were not told.
    """

    kind: str
    data: dict[str, object]


class PageLost(Exception):
    """The page is gone or never was there; the message says in words why."""


class NeverReady(PageLost):
    """It says itself that it is over, before there was anything to record."""


def public(url: str) -> str:
    """An address as it may be told: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that cannot be read"
    if parts.scheme not in ("http", "https", "ws", "wss"):
        # `data:` holds the content itself.
        return cut(f"{parts.scheme}:…" if parts.scheme not in ("about", "chrome") else url)
    name = f"[{host}]" if ":" in host else host
    return cut(f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path}")


def told(text: str) -> str:
    """A text of the page as it may be told: short, and addresses in it as in `public`."""
    # Addresses are looked for in what will be told only: the text may be very long.
    return cut(_ADDRESS.sub(lambda found: public(found[0]), text[: 2 * MAX_TEXT]))


def cut(text: str) -> str:
    """Not longer than an event's text may be."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
