"""The tree as it is now, for people and programs."""

from __future__ import annotations

import msgspec
import trio

from supervisor.actor import Actor
from supervisor.child import Child, State
from supervisor.process import Usage, group_usage
from supervisor.tree import Supervisor


class Mail(msgspec.Struct, frozen=True):
    """A mailbox: messages waiting, the most that ever waited, and what became of the others."""

    depth: int
    high_water: int
    size: int
    handled: int
    refused: int
    coalesced: int
    p50_ms: float | None
    p99_ms: float | None


class OsProcess(msgspec.Struct, frozen=True):
    """The group of a process: its leader's pid, seconds of processor time, bytes of memory."""

    pid: int
    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    processes: int | None = None


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One child. `since` is a Unix time; `doing_for` is in seconds; `stuck` says it is too long."""

    path: str
    kind: str
    state: str
    since: float
    restarts: int
    restarts_left: int
    doing: str | None = None
    doing_for: float | None = None
    stuck: bool = False
    last_reason: str | None = None
    last_error: str | None = None
    mailbox: Mail | None = None
    os_process: OsProcess | None = None
    children: list[Node] = []


def _walk(child: Child) -> list[Child]:
    service = child.service
    found = [child]
    if isinstance(service, Supervisor):
        for below in service.children():
            found.extend(_walk(below))
    return found


async def inspect(root: Child) -> Node:
    """The whole tree, with the use of each process group, from one look at /proc."""
    pids = {c.context.os_pid for c in _walk(root) if c.context is not None and c.context.os_pid}
    groups = {pid for pid in pids if pid is not None}
    usage = await trio.to_thread.run_sync(group_usage, groups) if groups else {}
    return describe(root, usage)


def describe(child: Child, usage: dict[int, Usage]) -> Node:
    """One child and all below it."""
    service, context = child.service, child.context
    doing = doing_for = None
    alive = child.state in (State.STARTING, State.RUNNING, State.STOPPING)
    if context is not None and alive and context.doing is not None:
        doing = context.doing
        doing_for = round(max(trio.current_time() - context.doing_since, 0.0), 3)
    pid = context.os_pid if context is not None and alive else None
    below = service.children() if isinstance(service, Supervisor) else ()
    return Node(
        path=child.path,
        kind=type(service).__name__.lstrip("_") if service is not None else child.spec.id,
        state=child.state.value,
        since=round(child.since, 3),
        restarts=child.restarts,
        restarts_left=child.window.left(trio.current_time()),
        doing=doing,
        doing_for=doing_for,
        stuck=doing_for is not None and doing_for > child.spec.stuck_after,
        last_reason=str(child.last_reason) if child.last_reason else None,
        last_error=child.last_error,
        mailbox=_mail(service) if isinstance(service, Actor) else None,
        os_process=_process(pid, usage) if pid else None,
        children=[describe(c, usage) for c in below],
    )


def _mail(actor: Actor[object]) -> Mail:  # type: ignore[type-var]
    box, timings = actor.mailbox, actor.timings
    p50 = timings.quantile(0.5) if timings else None
    p99 = timings.quantile(0.99) if timings else None
    return Mail(
        box.depth,
        box.high_water,
        box.size,
        box.handled,
        box.refused,
        box.coalesced,
        None if p50 is None else round(p50 * 1000, 4),
        None if p99 is None else round(p99 * 1000, 4),
    )


def _process(pid: int, usage: dict[int, Usage]) -> OsProcess:
    used = usage.get(pid)
    if used is None:
        return OsProcess(pid)
    return OsProcess(pid, round(used.cpu_seconds, 2), used.memory_bytes, used.processes)


def stuck_paths(root: Child) -> list[str]:
    """Paths of all that have been at one thing for too long."""
    now = trio.current_time()
    return [
        c.path
        for c in _walk(root)
        if c.context is not None
        and c.state is State.RUNNING
        and c.context.doing is not None
        and now - c.context.doing_since > c.spec.stuck_after
    ]


def quarantined_paths(root: Child) -> list[str]:
    """Paths of all that wait for somebody to restart them."""
    return [c.path for c in _walk(root) if c.state is State.QUARANTINED]
