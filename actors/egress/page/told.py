"""What is told of a page: so many events of a kind in a while, then how many were left out."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.egress.page.request import PageEvent

MOST = 20
WINDOW = 10.0


class _Window:
    def __init__(self, now: float) -> None:
        self.ends = now + WINDOW
        self.told = 0
        self.left_out = 0


class Told:
    """Passes events on; a page that says a million things a second says twenty."""

    def __init__(self, report: Callable[[PageEvent], None]) -> None:
        self._report = report
        self._windows: dict[str, _Window] = {}

    def __call__(self, kind: str, **data: object) -> None:
        """Tell of something, if there was not too much of its kind just now."""
        now = trio.current_time()
        window = self._windows.get(kind)
        if window is None or now >= window.ends:
            self._close(kind)
            window = self._windows[kind] = _Window(now)
        if window.told < MOST:
            window.told += 1
            self._report(PageEvent(kind, data))
        else:
            window.left_out += 1

    def left_out(self, kind: str, count: int) -> None:
        """So many of a kind did not even come here."""
        now = trio.current_time()
        self._windows.setdefault(kind, _Window(now)).left_out += count

    def flush(self) -> None:
        """Tell what was left out in times that are over."""
        now = trio.current_time()
        for kind in [kind for kind, window in self._windows.items() if now >= window.ends]:
            self._close(kind)

    def close(self) -> None:
        """Tell what was left out till now: it is over."""
        for kind in list(self._windows):
            self._close(kind)

    def _close(self, kind: str) -> None:
        window = self._windows.pop(kind, None)
        if window is not None and window.left_out:
            self._report(PageEvent("left_out", {"kind": kind, "count": window.left_out}))
