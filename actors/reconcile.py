"""The configuration in force, and its reload: load, compare, apply just the difference.

A file that cannot be used changes nothing; that it was tried is an event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import msgspec
import trio

from config.diff import Change, diff
from config.model import Config
from config.source import ConfigError
from supervisor.actor import Actor
from supervisor.errors import Rejected
from supervisor.log import logger
from supervisor.mailbox import Ask
from supervisor.store import Store
from supervisor.transaction import Transaction

# Changes that an event names: there may be thousands of numbers.
MOST_TOLD = 200


class Current:
    """The configuration in force; the reconciler alone sets it."""

    def __init__(self, config: Config) -> None:
        self.config = config


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload changed, or would change."""

    applied: bool
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Reload(Ask[Reloaded]):
    """Load the file again; with `dry`, only say what would change."""

    dry: bool = False


Applier = Callable[[Config, Config], Awaitable[None]]


class Reconciler(Actor[Any]):
    """`appliers` bring one part of the appliance each to a new configuration, given old and new.

    One that raises refuses the reload: those before it are brought back.
    """

    def __init__(
        self,
        current: Current,
        load: Callable[[], Config],
        store: Store,
        appliers: Sequence[Applier],
    ) -> None:
        self._current = current
        self._load = load
        self._store = store
        self._appliers = appliers

    async def handle(self, message: Reload) -> object:
        """See Actor.handle."""
        match message:
            case Reload(dry):
                return await self._reload(dry)
            case _:
                assert_never(message)

    async def _reload(self, dry: bool) -> Reloaded:
        try:
            # A file system that hangs must not keep the appliance from stopping.
            new = await trio.to_thread.run_sync(self._load, abandon_on_cancel=True)
        except ConfigError as error:
            problems = [str(p) for p in error.problems]
            if not dry:
                await self._failed(problems)
            raise Rejected(
                "invalid", "the configuration cannot be used", {"problems": problems}
            ) from error
        old = self._current.config
        changes = diff(old, new)
        if dry or not changes:
            return Reloaded(applied=not dry, changes=changes)
        await self._apply(old, new)
        told = [{"path": c.path, "effect": c.effect} for c in changes[:MOST_TOLD]]
        left_out = len(changes) - len(told)
        more = {"left_out": left_out} if left_out else {}
        await self._announce("config.reloaded", {"changes": told, **more})
        logger.info("config_reloaded", changes=[c["path"] for c in told], left_out=left_out)
        return Reloaded(applied=True, changes=changes)

    async def _apply(self, old: Config, new: Config) -> None:
        """Bring all parts to the new configuration, or all of them back to the old one."""
        self._current.config = new
        done: list[Applier] = []
        try:
            for applier in self._appliers:
                done.append(applier)
                await applier(old, new)
        except Exception as error:
            self._current.config = old
            for applier in reversed(done):
                try:
                    await applier(new, old)
                except Exception as again:  # noqa: BLE001 - the others must go back all the same
                    logger.error("not_taken_back", error=repr(again))
            await self._failed([str(error)])
            raise Rejected("conflict", f"nothing was changed: {error}") from error

    async def _failed(self, problems: list[str]) -> None:
        logger.error("config_refused", problems=problems)
        await self._announce("config.refused", {"problems": problems})

    async def _announce(self, type: str, data: dict[str, Any]) -> None:
        try:
            await self._store.write(_emit, type, data)
        except Rejected as error:
            logger.error("event_not_kept", event_type=type, error=str(error))


def _emit(tx: Transaction, type: str, data: dict[str, Any]) -> None:
    tx.emit(type, "system/config", data)
