"""One child's life: incarnations, restarts, quarantine, and its stop.

Who restarts with whom is the supervisor's business (tree.py); this module knows one
child only.
"""

from __future__ import annotations

import enum
import math
import time
from typing import TYPE_CHECKING

import trio

from supervisor.errors import Fatal
from supervisor.intensity import RestartWindow
from supervisor.log import logger
from supervisor.mailbox import Mailbox
from supervisor.ref import AnyRef, Ref
from supervisor.service import Context, Service
from supervisor.spec import Cause, ChildSpec, Restart, StopReason
from supervisor.system import Happening, System

if TYPE_CHECKING:
    from supervisor.tree import Supervisor

# A cancelled incarnation gets this long to unwind before it is given up as lost.
UNWIND = 5.0

# After a stop for one of these it does not come back.
_FINAL = (Cause.SHUTDOWN, Cause.REMOVED, Cause.RECONFIGURED)


class State(enum.Enum):
    """Where a child is in its life."""

    WAITING = "waiting"  # for an earlier sibling
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"  # crashed; starts again by itself
    QUARANTINED = "quarantined"  # crashed too often; starts again by hand
    ENDED = "ended"


class Child:
    """A place in the tree. Refs point here and outlive the incarnations."""

    __slots__ = (
        "_changed",
        "_context",
        "_prepared",
        "_revive",
        "_scope",
        "_window",
        "ended",
        "failures",
        "last_error",
        "last_reason",
        "mailbox",
        "path",
        "ready_at",
        "restarts",
        "service",
        "since",
        "spec",
        "state",
        "stop_reason",
        "supervisor",
        "system",
    )

    def __init__(self, spec: ChildSpec, path: str, supervisor: Supervisor, system: System) -> None:
        self.spec = spec
        self.path = path
        self.supervisor = supervisor
        self.system = system
        self._window: RestartWindow | None = None
        self.service: Service | None = None
        self.mailbox: Mailbox | None = None
        self.stop_reason: StopReason | None = None
        self.last_reason: StopReason | None = None
        self.last_error: str | None = None
        self.restarts = 0
        self.failures = 0
        self.ready_at: float | None = None
        self.ended = False
        self.state = State.WAITING
        self.since = time.time()
        self._prepared = False
        self._scope: trio.CancelScope | None = None
        self._context: Context | None = None
        self._changed: trio.Event | None = None
        self._revive: trio.Event | None = None

    # -- seen from outside ----------------------------------------------------

    @property
    def ref(self) -> AnyRef:
        """A reference to whatever lives here."""
        return Ref(self)

    @property
    def context(self) -> Context | None:
        """The current incarnation's context."""
        return self._context

    @property
    def window(self) -> RestartWindow:
        """Which restarts count now; made when first looked at: most children never crash."""
        if self._window is None:
            self._window = RestartWindow(self.spec.intensity)
        return self._window

    @property
    def down_reason(self) -> str:
        """Why there is no mailbox now."""
        why = self.last_reason or self.stop_reason
        return f"{self.state.value}" + (f" after {why}" if why else "")

    def become(self, state: State) -> None:
        """Change state and wake who waits for a change."""
        self.state = state
        self.since = time.time()
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def settled(self) -> None:
        """Return once it runs, is quarantined or has ended."""
        while self.state not in (State.RUNNING, State.QUARANTINED, State.ENDED):
            await self.change()

    async def change(self) -> None:
        """Return at the next change of state."""
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()

    def became_ready(self) -> None:
        """Called through the context when the service is ready."""
        if self.state is State.STARTING:
            self.ready_at = trio.current_time()
            if self._scope is not None:
                self._scope.deadline = float("inf")
            self.become(State.RUNNING)

    # -- life -----------------------------------------------------------------

    async def live(self) -> None:
        """All incarnations, until it is not to be started again."""
        try:
            while not self._stopped_for_good():
                reason = self.last_reason = await self._incarnation()
                if not await self._comes_back(reason):
                    break
        finally:
            # It may have been prepared and stopped before its first turn: somebody may be waiting.
            self._put_away(self.last_reason or StopReason(Cause.SHUTDOWN))
            self.ended = True
            self.become(State.ENDED)
            self.supervisor.forget(self)

    def _stopped_for_good(self) -> bool:
        if self.stop_reason is None or self.stop_reason.cause not in _FINAL:
            return False
        self.last_reason = self.stop_reason
        return True

    async def _comes_back(self, reason: StopReason) -> bool:
        """After an incarnation: wait until there is to be another; False when there is not."""
        if reason is self.stop_reason:
            self.stop_reason = None
        if self.supervisor.stopping_reason is not None or not self._restarts_after(reason):
            return False
        if reason.cause is Cause.SIBLING:
            if not await self._pause(State.WAITING):
                return False
        elif not await self._before_restart(reason):
            return False
        self.restarts += 1
        self.system.listener(Happening("restarted", self.path, reason, self.restarts))
        return True

    def _restarts_after(self, reason: StopReason) -> bool:
        if reason.cause in _FINAL or reason.cause is Cause.BY_HAND:
            return reason.cause is Cause.BY_HAND
        rule = self.spec.restart
        return rule is Restart.PERMANENT or (
            rule is Restart.TRANSIENT and (reason.abnormal or reason.cause is Cause.SIBLING)
        )

    async def _before_restart(self, reason: StopReason) -> bool:
        by_hand = reason.cause is Cause.BY_HAND
        if not by_hand:
            self.become(State.BACKOFF)
        await self.supervisor.before_restart(self)
        # A permanent child that ends by itself is paced and counted as one that crashes:
        # one that ends as soon as it starts would otherwise take the whole processor.
        if not by_hand and not await self._after_failure(reason):
            return False
        # It may have been stopped, for good or for a sibling's sake, while the siblings stopped.
        return self.stop_reason is None or await self._pause(State.WAITING)

    async def _after_failure(self, reason: StopReason) -> bool:
        now = trio.current_time()
        ran_for = now - self.ready_at if self.ready_at is not None else 0.0
        self.failures = self.spec.backoff.failures_after(self.failures, ran_for)
        if self.window.allow(now):
            delay = self.spec.backoff.delay(self.failures, self.system.rng)
            return await self._pause(State.BACKOFF, delay)
        logger.error("quarantined", actor=self.path, reason=str(reason))
        self.system.listener(Happening("quarantined", self.path, reason, self.restarts))
        if self.spec.significant:
            self.supervisor.escalate(self, reason)
            return False
        return await self._pause(State.QUARANTINED)

    async def _pause(self, state: State, seconds: float = math.inf) -> bool:
        """Wait to be started again; False when it is stopped for good instead."""
        while True:
            self._revive = trio.Event()
            self.become(state)
            if self.supervisor.stopping_reason is None and self.stop_reason is None:
                with trio.move_on_after(seconds):
                    await self._revive.wait()
            self._revive = None
            reason = self.stop_reason
            if reason is None:
                return self.supervisor.stopping_reason is None
            if reason.cause in _FINAL:
                return False
            self.stop_reason = None
            if reason.cause is Cause.BY_HAND:
                return True
            state, seconds = State.WAITING, math.inf

    def prepare(self) -> tuple[Service, Context]:
        """Make the next incarnation's service and mailbox, if they are not there already."""
        if self.service is None or self._context is None or not self._prepared:
            self.service = self.spec.start()
            self._context = Context(self)
            self.mailbox = self.service.open_mailbox(self.path)
            self._prepared = True
        return self.service, self._context

    async def _incarnation(self) -> StopReason:
        self.ready_at = None
        self.become(State.STARTING)
        crash: Exception | None = None
        cut_off = False
        try:
            service, context = self.prepare()
            returned = False
            # One nursery is both: the scope that bounds start and stop, and the place for the
            # service's own long work. A scope and a nursery apart cost a third of a start.
            async with trio.open_nursery() as nursery:
                context.nursery = nursery
                scope = self._scope = nursery.cancel_scope
                scope.deadline = trio.current_time() + self.spec.ready_timeout
                await service.run(context)
                returned = True
                scope.cancel()
            cut_off = not returned
        except Fatal:
            raise
        except BaseExceptionGroup as group:
            crash = _crash_in(group)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a crash of the child
            crash = error
        finally:
            reason = self._reason(crash, cut_off)
            self._put_away(reason)
        return reason

    def _reason(self, crash: Exception | None, cut_off: bool) -> StopReason:
        if crash is not None:
            self.last_error = f"{type(crash).__name__}: {crash}"
            logger.error("crashed", actor=self.path, exc_info=crash)
            reason = StopReason(Cause.CRASH, self.last_error)
            self.system.listener(Happening("crashed", self.path, reason, self.restarts))
            # A crash while it was being stopped does not bring it back.
            return self.stop_reason if self.stop_reason is not None else reason
        if self.stop_reason is not None:
            if cut_off:
                logger.warning("grace_exceeded", actor=self.path, grace=self.spec.grace)
            return self.stop_reason
        if cut_off:
            self.last_error = f"not ready within {self.spec.ready_timeout:g} s"
            return StopReason(Cause.NOT_READY, self.last_error)
        return StopReason(Cause.NORMAL)

    def _put_away(self, reason: StopReason) -> None:
        mailbox, self.mailbox = self.mailbox, None
        if mailbox is not None:
            mailbox.close(str(reason))
        self._scope = None
        self._prepared = False

    # -- stop and restart -----------------------------------------------------

    async def stop(self, reason: StopReason) -> None:
        """Ask it to stop and wait: its grace, then cancellation, then a short while.

        For good, or, when the cause is a sibling or a restart by hand, until it has stopped.
        """
        if self.ended:
            return
        if self.stop_reason is None or reason.cause in _FINAL:
            self.stop_reason = reason
        if self._revive is not None:
            self._revive.set()
        if self._scope is not None and self.state is not State.STOPPING:
            # Once: a second stop must not lengthen the grace that the first gave.
            self._scope.deadline = trio.current_time() + self.spec.grace
            self.become(State.STOPPING)
            if self._context is not None:
                self._context.wake()
            if self.mailbox is not None:
                self.mailbox.wake()
        with trio.move_on_after(self.spec.grace + UNWIND) as overdue:
            if reason.cause in _FINAL:
                while not self.ended:
                    await self.change()
            else:
                while self.state is State.STOPPING:
                    await self.change()
        if overdue.cancelled_caught:
            logger.error("stop_overdue", actor=self.path, grace=self.spec.grace)

    async def restart(self, reason: StopReason) -> None:
        """Stop it and start it again, or end its backoff or quarantine; returns once settled."""
        if self.state in (State.BACKOFF, State.QUARANTINED) and self._revive is not None:
            self.window.clear()
            self.failures = 0
            self.system.listener(Happening("revived", self.path, reason, self.restarts))
            self._revive.set()
            await self.change()
        elif self._scope is not None:
            await self.stop(reason)
        await self.settled()

    def resume(self) -> None:
        """Start again after a stop for an earlier sibling's sake."""
        if self.state is State.WAITING and self._revive is not None:
            self._revive.set()


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _crash_in(group: BaseExceptionGroup[BaseException]) -> Exception:
    """What ended an incarnation. Raises a Fatal in it, and what is no Exception."""
    # Cancelled may come grouped with an error: only the error is ours to report.
    _cancelled, errors = group.split(trio.Cancelled)
    if errors is None:
        raise group
    fatal = errors.subgroup(Fatal)
    if fatal is not None:
        raise first_of(fatal) from None
    if not isinstance(errors, ExceptionGroup):
        raise group
    return _simplest(errors)


def _simplest(group: ExceptionGroup[Exception]) -> Exception:
    """The one error in it, if it is one: a nursery of one child is no news."""
    error: Exception = group
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
