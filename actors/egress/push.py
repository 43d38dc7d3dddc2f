"""Sends a recording on to an RTMP server as it grows, some seconds behind it.

It reads what the encoder writes: whatever the far end does, the recording does not notice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import trio

from actors.egress.encode import push_arguments
from supervisor.backoff import Backoff
from supervisor.orphans import Registry
from supervisor.process import Command, Process

AGAIN = Backoff(first=1.0, cap=15.0, healthy_after=30.0)
# When the recording is over, the far end gets what is left of it for so long, in seconds.
REST = 10.0
# How often it is looked whether the first segments are there: they are files, there is no event.
LOOK_EVERY = 0.2


async def push(
    playlist: Path,
    url: str,
    registry: Registry,
    owner: str,
    ended: trio.Event,
    report: Callable[[str, dict[str, object]], None],
) -> None:
    """Send until the recording is over and all of it was sent, or cancelled."""
    while not playlist.exists():
        if ended.is_set():
            return
        await trio.sleep(LOOK_EVERY)
    failures, rng = 0, random.Random()  # noqa: S311 - jitter
    while not ended.is_set():
        began = trio.current_time()
        report("push_started", {})
        process = Process(Command(push_arguments(playlist, url), owner=owner), registry)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_give_rest, ended, scope)
                how = await process.run()
                nursery.cancel_scope.cancel()
            if how.status == 0 and ended.is_set():
                return
            failures = AGAIN.failures_after(failures, trio.current_time() - began)
            said = " ".join(process.last_lines(1)).replace(url, "rtmp://***")
            report("push_lost", {"reason": f"ffmpeg {how}: {said}"[:300], "failures": failures})
        with trio.move_on_after(AGAIN.delay(failures, rng)):
            await ended.wait()


async def _give_rest(ended: trio.Event, scope: trio.CancelScope) -> None:
    await ended.wait()
    scope.deadline = trio.current_time() + REST
