"""How a page ended: said once, by whoever knows first."""

from __future__ import annotations

from typing import NoReturn

import trio


class Verdict:
    """`scope` is cancelled when it is given: around what goes on as long as the page does."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.reason: str | None = None
        self.is_lost = False

    def lost(self, reason: str) -> None:
        """It died, or did not get ready."""
        self._give(reason, is_lost=True)

    def over(self, reason: str) -> None:
        """It says so itself."""
        self._give(reason, is_lost=False)

    def _give(self, reason: str, *, is_lost: bool) -> None:
        if self.reason is None:
            self.reason = reason
            self.is_lost = is_lost
            self.scope.cancel()

    async def fail(self, reason: str) -> NoReturn:
        """Lost, said within `scope`: nothing comes after it."""
        self.lost(reason)
        await trio.sleep_forever()
