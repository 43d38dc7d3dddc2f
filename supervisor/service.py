"""What can stand in the tree: anything with `run`.

An actor is a service with a mailbox (actor.py); a supervisor is a service with
children (tree.py); a few services have neither (a listener, the store's writer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from supervisor.mailbox import Mailbox
from supervisor.spec import Cause, StopReason

if TYPE_CHECKING:
    from supervisor.child import Child
    from supervisor.system import System


class Context:
    """What a running service knows of its place; made anew for each incarnation."""

    __slots__ = ("_stop", "child", "doing", "doing_since", "nursery", "os_pid", "system")

    def __init__(self, child: Child) -> None:
        self.child = child
        self.system: System = child.system
        self._stop: trio.Event | None = None
        self.doing: str | None = None
        self.doing_since = 0.0
        self.os_pid: int | None = None
        # For the service's own long work: it lives as long as the incarnation.
        self.nursery: trio.Nursery

    @property
    def path(self) -> str:
        """Where in the tree."""
        return self.child.path

    def ready(self) -> None:
        """Say that it serves now; what was started after it may start."""
        self.child.became_ready()

    @property
    def stopping(self) -> bool:
        """Has somebody asked it to stop?"""
        return self.child.stop_reason is not None

    @property
    def stop_reason(self) -> StopReason:
        """Why it is to stop; NORMAL while nobody has asked."""
        return self.child.stop_reason or StopReason(Cause.NORMAL)

    async def stopped(self) -> None:
        """Return when it is asked to stop."""
        if self.stopping:
            return
        if self._stop is None:
            self._stop = trio.Event()
        await self._stop.wait()

    def wake(self) -> None:
        """Called once, by the child, when a stop is asked for."""
        if self._stop is not None:
            self._stop.set()

    def begin(self, what: str) -> None:
        """Say what it is doing from now on: shown in the tree, with the time it has taken."""
        self.doing = what
        self.doing_since = trio.current_time()

    def idle(self) -> None:
        """Say that it waits for work."""
        self.doing = None


class Service:
    """Base of everything that runs in the tree. A new instance for each incarnation."""

    def open_mailbox(self, path: str) -> Mailbox | None:
        """The mailbox others reach it by, if it has one; opened before `run`."""
        del path
        return None

    async def run(self, context: Context) -> None:
        """Serve until done or until `context.stopped()`; call `context.ready()` once.

        An exception that comes out is a crash.
        """
        raise NotImplementedError
