"""The store for those who cannot go on without it: while the disk refuses, they wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

from supervisor.errors import StoreUnavailable
from supervisor.log import logger
from supervisor.store import Store
from supervisor.transaction import Reading, Transaction

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

# A disk that refused is tried again after so many seconds.
AGAIN = 2.0


class Patient:
    """For the webhook `name`. Never raises StoreUnavailable; may be cancelled."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    async def write(self, fn: Callable[[Transaction, *Ts], R], *args: *Ts) -> R:
        """As Store.write, until it is done."""
        while True:
            try:
                return await self._store.write(fn, *args)
            except StoreUnavailable as error:
                await self.wait(error)

    async def read(self, fn: Callable[[Reading, *Ts], R], *args: *Ts) -> R:
        """As Store.read, until there is an answer."""
        while True:
            try:
                return await self._store.read(fn, *args)
            except StoreUnavailable as error:
                await self.wait(error)

    async def wait(self, error: StoreUnavailable) -> None:
        """Until it is worth another try."""
        logger.warning("webhook_waits_for_disk", webhook=self._name, error=str(error))
        await trio.sleep(AGAIN)
