"""Supervisors: who is started when, who restarts with whom, who stops first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import trio

from supervisor.child import Child, State, first_of
from supervisor.errors import Fatal, StartFailed
from supervisor.log import logger
from supervisor.mailbox import Mailbox
from supervisor.service import Context, Service
from supervisor.spec import Cause, ChildSpec, StopReason, Strategy
from supervisor.system import System


class Supervisor(Service):
    """Starts its children in order, each when the one before is ready; stops in reverse.

    Children may be added and removed while it runs (`start_child`, `stop_child`); these
    are independent of each other, and stop all at once at the end, before the others.
    """

    def __init__(
        self, children: Sequence[ChildSpec] = (), strategy: Strategy = Strategy.ONE_FOR_ONE
    ) -> None:
        self._specs = children
        self._strategy = strategy
        self._static: list[Child] = []
        self._dynamic: dict[str, Child] = {}
        self._nursery: trio.Nursery | None = None
        self._context: Context | None = None
        self._fallen: tuple[Child, StopReason] | None = None
        self.stopping_reason: StopReason | None = None

    async def run(self, context: Context) -> None:
        """See Service.run."""
        self._context = context
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for spec in self._specs:
                if context.stopping or self._fallen is not None:
                    break
                child = self._place(spec)
                self._static.append(child)
                nursery.start_soon(child.live, name=child.path)
                await self._settled_or_stopping(child, context)
            if self._fallen is None:
                context.ready()
            await context.stopped()
            await self._stop_all(StopReason(Cause.SHUTDOWN, context.stop_reason.detail))
            nursery.cancel_scope.cancel()
        self._nursery = None
        if self._fallen is not None:
            child, reason = self._fallen
            raise StartFailed(f"{child.path} cannot be kept running: {reason}")

    async def _settled_or_stopping(self, child: Child, context: Context) -> None:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await context.stopped()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            await child.settled()
            nursery.cancel_scope.cancel()

    # -- dynamic children -----------------------------------------------------

    def start_child(self, spec: ChildSpec) -> Child:
        """Add a child and start it; returns at once (`await child.settled()` to wait).

        Raises ValueError for an id in use, StartFailed while the supervisor is not running.
        """
        if self._nursery is None or self.stopping_reason is not None:
            raise StartFailed("the supervisor is not running")
        if spec.id in self._dynamic:
            raise ValueError(f"child {spec.id!r} exists already")
        child = self._place(spec)
        # Its mailbox is there from now on: what is sent before its first turn waits in it.
        with suppress(Exception):
            # What cannot be made is a crash of the child, at its first turn; not the caller's.
            child.prepare()
        self._dynamic[spec.id] = child
        self._nursery.start_soon(child.live, name=child.path)
        return child

    async def stop_child(self, id: str, reason: StopReason) -> None:
        """Stop a dynamic child for good, within its grace. An unknown id is no error."""
        child = self._dynamic.get(id)
        if child is not None:
            await child.stop(reason)

    def child(self, id: str) -> Child | None:
        """A child by id."""
        if id in self._dynamic:
            return self._dynamic[id]
        return next((c for c in self._static if c.spec.id == id), None)

    def children(self) -> Iterator[Child]:
        """All, in the order of their start."""
        yield from self._static
        yield from list(self._dynamic.values())

    def _place(self, spec: ChildSpec) -> Child:
        assert self._context is not None
        base = self._context.path.rstrip("/")
        return Child(spec, f"{base}/{spec.id}", self, self._context.system)

    # -- called by the children -----------------------------------------------

    def forget(self, child: Child) -> None:
        """A dynamic child has ended for good."""
        if self._dynamic.get(child.spec.id) is child:
            del self._dynamic[child.spec.id]

    def escalate(self, child: Child, reason: StopReason) -> None:
        """A significant child is past its intensity: end, with its reason."""
        logger.critical("significant_child_lost", actor=child.path, reason=str(reason))
        self._fallen = (child, reason)
        assert self._context is not None
        self._context.child.stop_reason = StopReason(Cause.CRASH, f"lost {child.path}: {reason}")
        self._context.wake()

    async def before_restart(self, child: Child) -> None:
        """Under rest_for_one: stop the later siblings first, and bring them back after."""
        if self._strategy is Strategy.ONE_FOR_ONE or child not in self._static:
            return
        later = self._static[self._static.index(child) + 1 :]
        for sibling in reversed(later):
            await sibling.stop(StopReason(Cause.SIBLING, f"{child.path} restarts"))
        assert self._nursery is not None
        self._nursery.start_soon(self._resume, child, later)

    async def _resume(self, first: Child, later: Sequence[Child]) -> None:
        await _up_or_ended(first)
        for sibling in later:
            if first.state is not State.RUNNING:
                # It went down again, and will bring them back when it is up again.
                return
            sibling.resume()
            await trio.lowlevel.checkpoint()
            await sibling.settled()

    # -- stop -----------------------------------------------------------------

    async def _stop_all(self, reason: StopReason) -> None:
        self.stopping_reason = reason
        async with trio.open_nursery() as nursery:
            for child in list(self._dynamic.values()):
                nursery.start_soon(child.stop, reason)
        for child in reversed(self._static):
            await child.stop(reason)


async def _up_or_ended(child: Child) -> None:
    while child.state is not State.RUNNING and not child.ended:
        await child.change()


class Place:
    """A place in the tree by the ids on the way to it, found when it is used.

    For a Ref that must exist before the tree runs.
    """

    def __init__(self, top: Callable[[], Supervisor], *ids: str) -> None:
        self._top = top
        self._ids = ids
        self.path = "/" + "/".join(ids)

    def _child(self) -> Child | None:
        service: Service | None = self._top()
        child = None
        for part in self._ids:
            child = service.child(part) if isinstance(service, Supervisor) else None
            if child is None:
                return None
            service = child.service
        return child

    @property
    def mailbox(self) -> Mailbox | None:
        """See ref.Cell."""
        child = self._child()
        return None if child is None else child.mailbox

    @property
    def down_reason(self) -> str:
        """See ref.Cell."""
        child = self._child()
        return "not started yet" if child is None else child.down_reason


class Root:
    """The top of a tree: runs one supervisor until it is told to stop."""

    def __init__(self, supervisor: Supervisor, system: System) -> None:
        self.supervisor = supervisor
        # The root is nobody's child; this one only gives it a path and a stop flag.
        self.child = Child(ChildSpec(id="", start=lambda: supervisor), "/", supervisor, system)
        self.child.service = supervisor

    async def run(self) -> None:
        """Run until stopped. Raises StartFailed when a significant child was lost, or Fatal."""
        context = self.child._context = Context(self.child)
        self.child.become(State.STARTING)
        try:
            await self.supervisor.run(context)
        except BaseExceptionGroup as group:
            fatal = group.subgroup(Fatal)
            if fatal is None:
                raise
            raise first_of(fatal) from None
        finally:
            self.child.ended = True
            self.child.become(State.ENDED)

    def stop(self, reason: StopReason) -> None:
        """Begin the ordered stop; `run` returns when it is done."""
        if self.child.stop_reason is None:
            self.child.stop_reason = reason
            if self.child.context is not None:
                self.child.context.wake()
