"""A small protocol and its actor, and a tree for it to run in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from supervisor.actor import Actor
from supervisor.mailbox import Ask, Message
from supervisor.spec import Cause, StopReason
from supervisor.system import System
from supervisor.tree import Root, Supervisor


@dataclass(frozen=True, slots=True)
class Count(Message):
    """Count one."""

    number: int


@dataclass(frozen=True, slots=True)
class Echo(Ask[int]):
    """Answer with the number."""

    number: int


class Counter(Actor[Count | Echo]):
    """Counts what it is told and echoes what it is asked."""

    def __init__(self) -> None:
        self.wanted = 0
        self.done = trio.Event()

    async def handle(self, message: Count | Echo) -> object:
        if isinstance(message, Echo):
            return message.number
        self.wanted -= 1
        if self.wanted == 0:
            self.done.set()
        return None


@asynccontextmanager
async def tree() -> AsyncIterator[Supervisor]:
    """A running supervisor."""
    top = Supervisor()
    root = Root(top, System())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(root.run)
        await root.child.settled()
        yield top
        root.stop(StopReason(Cause.SHUTDOWN, "measured"))
