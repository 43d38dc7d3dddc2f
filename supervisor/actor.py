"""The receive loop, and an actor's life from start to stop."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Generic, TypeVar, TypeVarTuple

import trio

from supervisor.errors import ActorDown, Rejected
from supervisor.log import logger
from supervisor.mailbox import Mailbox, Message
from supervisor.reply import Reply
from supervisor.service import Context, Service
from supervisor.spec import StopReason
from supervisor.timing import Timings

M = TypeVar("M", bound=Message)
Ts = TypeVarTuple("Ts")


class _Later:
    """Returned by `handle` when the answer comes later, through `defer`."""


LATER: Final = _Later()


class Actor(Service, Generic[M]):
    """Handles one message at a time.

    Subclasses give `handle`, and, where needed, `on_start` (ready when it returns) and
    `on_stop`. What takes long runs in `spawn` and reports back with `post`.
    """

    mailbox_size: ClassVar[int] = 64
    # Messages handled before others get a turn. A burst costs one wake-up.
    budget: ClassVar[int] = 64

    context: Context
    mailbox: Mailbox
    timings: Timings | None = None
    _reply: Reply[Any] | None = None
    _deferred: set[Reply[Any]] | None = None

    async def on_start(self) -> None:
        """Prepare; the actor is ready when this returns."""

    async def handle(self, message: M) -> object:
        """Act on one message. For an ask, what is returned is the answer (or LATER).

        A Rejected that is raised goes to the asker; anything else ends the actor.
        """
        raise NotImplementedError

    async def on_stop(self, reason: StopReason) -> None:
        """Leave things tidy, within the grace of the child's spec."""

    # -- for subclasses -------------------------------------------------------

    def spawn(self, fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run long work beside the receive loop; a crash of it is a crash of the actor."""
        self.context.nursery.start_soon(fn, *args)

    async def post(self, message: M) -> None:
        """Report from own long work: waits for room instead of being refused."""
        try:
            await self.mailbox.post(message)
        except ActorDown:
            logger.debug("report_after_end", actor=self.context.path, message=repr(message))

    def defer(self) -> Reply[Any]:
        """Take charge of answering the ask now handled; then return LATER from `handle`.

        Whoever still waits when the actor ends gets ActorDown.
        """
        reply = self._reply
        assert reply is not None, "only an ask can be answered later"
        if self._deferred is None:
            self._deferred = set()
        elif len(self._deferred) >= 64:
            self._deferred = {r for r in self._deferred if not r.done}
        self._deferred.add(reply)
        return reply

    # -- the life -------------------------------------------------------------

    def open_mailbox(self, path: str) -> Mailbox:
        """See Service.open_mailbox."""
        self.mailbox = Mailbox(path, self.mailbox_size)
        return self.mailbox

    async def run(self, context: Context) -> None:
        """See Service.run."""
        self.context = context
        try:
            context.begin("start")
            await self.on_start()
            context.idle()
            context.ready()
            await self._receive_loop(context)
            context.begin(f"stop ({context.stop_reason})")
            await self.on_stop(context.stop_reason)
        finally:
            self._fail_deferred(
                str(context.child.stop_reason or ("normal" if self._done else "crashed"))
            )

    def stop_soon(self) -> None:
        """End with NORMAL, once the current message is handled: the actor's own wish."""
        self._done = True
        self.mailbox.wake()

    _done = False

    async def _receive_loop(self, context: Context) -> None:
        mailbox = self.mailbox
        # Looked at after every message: without the calls it takes to ask the context.
        child = context.child
        if self._done or context.stopping:
            return
        take = mailbox.take
        while True:
            item = await take()
            budget = self.budget
            while True:
                if type(item) is Reply:
                    await self._ask(context, item)
                elif item is not None:
                    await self._tell(context, item)  # type: ignore[arg-type]
                if self._done or child.stop_reason is not None:
                    return
                budget -= 1
                if not budget:
                    await trio.lowlevel.checkpoint()
                    budget = self.budget
                following = mailbox.take_nowait()
                if following is None:
                    break
                item = following

    async def _tell(self, context: Context, message: M) -> None:
        context.doing = type(message).__name__
        context.doing_since = trio.current_time()
        began = time.perf_counter_ns()
        try:
            await self.handle(message)
        except Rejected as error:
            # Nobody asked, so nobody else hears of it.
            logger.warning(
                "message_rejected", actor=context.path, message=context.doing, error=str(error)
            )
        self._count(began)
        context.doing = None

    async def _ask(self, context: Context, reply: Reply[Any]) -> None:
        now = trio.current_time()
        if reply.done or now >= reply.deadline:
            return  # there is nobody left to answer
        message = reply.message
        context.doing = type(message).__name__
        context.doing_since = now
        began = time.perf_counter_ns()
        self._reply = reply
        try:
            answer = await self.handle(message)  # type: ignore[arg-type]
        except Rejected as error:
            reply.fail(error)
        except BaseException:
            reply.fail(ActorDown(context.path, f"crashed on {context.doing}"))
            raise
        else:
            if answer is not LATER:
                reply.set(answer)
        self._reply = None
        self._count(began)
        context.doing = None

    def _count(self, began: int) -> None:
        self.mailbox.handled += 1
        timings = self.timings
        if timings is None:
            timings = self.timings = Timings()
        timings.add(time.perf_counter_ns() - began)

    def _fail_deferred(self, reason: str) -> None:
        for reply in self._deferred or ():
            reply.fail(ActorDown(self.context.path, reason))
