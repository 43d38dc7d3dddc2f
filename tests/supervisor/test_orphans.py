"""No process of ours outlives us, and none that is not ours is touched.

Real processes and real kills: the appliance is a program of its own (hosts/appliance.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import guardian, orphans
from supervisor.child import State
from supervisor.orphans import VARIABLE, Registry, sweep
from supervisor.spec import ChildSpec
from tests.supervisor.kit import EVEN, Bench, Tree, reach
from tests.supervisor.procs import FAMILY, alive, gone, registry, run

ROOT = Path(__file__).parents[2]


class Appliance:
    """A program with a guardian and a process that has two below it."""

    def __init__(self, of: Registry) -> None:
        self.of = of
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.supervisor.hosts.appliance", of.instance, str(of.boot)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self.program.stdout is not None
        self.pids: dict[str, int] = json.loads(self.program.stdout.readline())

    @property
    def family(self) -> list[int]:
        return [self.pids["leader"], self.pids["in"], self.pids["out"]]

    def end(self) -> None:
        """Leave nothing behind, whatever the test has left."""
        self.program.kill()
        self.program.wait(10)
        assert self.program.stdout is not None
        self.program.stdout.close()
        for pid in self.family:
            if guardian.marked(pid, self.of.marker.encode()):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def appliance() -> Iterator[Appliance]:
    appliance = Appliance(registry(boot=4))
    yield appliance
    appliance.end()


class Stranger:
    """A process that this test started as somebody else would, with a marker or without."""

    def __init__(self, marker: str | None = None) -> None:
        environment = dict([marker.split("=", 1)]) if marker else {}
        self._process = subprocess.Popen(
            ["/bin/sleep", "300"], env=environment, start_new_session=True
        )
        self.pid = self._process.pid
        started = guardian.start_time(self.pid)
        assert started is not None
        self.started = started

    def survived(self) -> bool:
        """Ends it now: had it been killed before, that is what its status says."""
        self._process.terminate()
        return self._process.wait(10) == -signal.SIGTERM


async def kill_without_guardian(appliance: Appliance) -> None:
    """Both at once, as when the machine's memory runs out."""
    # Stopped, so that it does not start another guardian in between.
    os.kill(appliance.program.pid, signal.SIGSTOP)
    os.kill(appliance.pids["guardian"], signal.SIGKILL)
    await gone(appliance.pids["guardian"])
    appliance.program.kill()
    await gone(appliance.program.pid)


def guard_lost(of: Registry) -> int:
    """Close the pipe to the guardian as a killed appliance does; the guardian's pid."""
    lost, of._guardian = of._guardian, None
    assert lost is not None
    assert lost.stdin is not None
    lost.stdin.close()
    return lost.pid


# -- the guardian --------------------------------------------------------------------


async def test_when_the_appliance_is_killed_its_guardian_kills_all_its_processes(
    appliance: Appliance,
) -> None:
    """The group, and what left it for a session of its own."""
    with trio.fail_after(10):
        # The shell tells a pid before the program there has made its session.
        while os.getsid(appliance.pids["out"]) == appliance.pids["leader"]:
            await trio.sleep(0.01)
    assert all(alive(pid) for pid in appliance.family)
    appliance.program.kill()
    for pid in appliance.family:
        await gone(pid)
    await gone(appliance.pids["guardian"])


async def test_the_guardian_touches_nobody_else(appliance: Appliance) -> None:
    of = appliance.of
    strangers = [
        Stranger(),
        Stranger(Registry(of.instance, of.boot + 1).marker),
        Stranger(registry(of.boot).marker),
    ]
    appliance.program.kill()
    await gone(appliance.pids["guardian"])
    assert [s.survived() for s in strangers] == [True, True, True]


async def test_a_guardian_killed_alone_is_replaced_and_told_of_all_there_is(
    nursery: trio.Nursery,
) -> None:
    of = registry()
    tree = Tree([ChildSpec("guardian", of.service, backoff=EVEN)])
    with trio.fail_after(20):
        await tree.start(nursery)
        process, words = await run(nursery, FAMILY, of)
        await words.starting("ready")
        child = tree.child("guardian")
        first = child.context
        assert first is not None
        assert first.os_pid is not None
        os.kill(first.os_pid, signal.SIGKILL)
        await reach(child, State.BACKOFF)
        assert child.last_error == "RuntimeError: the guardian ended with status -9"
        await reach(child, State.RUNNING)
        assert child.context is not None
        assert child.context.os_pid != first.os_pid
        # As if we were killed: the pipe closes, and no farewell was said.
        guard_lost(of)
        ended = await process.wait()
        assert (ended.status, ended.asked) == (-signal.SIGKILL, False)
        await gone(int(await words.starting("out")))
        await reach(child, State.BACKOFF)
        await tree.stop()


async def test_a_guardian_that_was_told_farewell_kills_nobody(nursery: trio.Nursery) -> None:
    of = registry()
    tree = Tree([ChildSpec("guardian", of.service)])
    with trio.fail_after(20):
        await tree.start(nursery)
        process, _ = await run(nursery, "exec sleep 300", of)
        context = tree.child("guardian").context
        assert context is not None
        assert context.os_pid is not None
        await tree.stop()
        await gone(context.os_pid)
        assert str(await process.stop(5.0)) == "ended by SIGTERM as asked"


async def test_a_group_that_has_ended_is_not_on_the_guardians_list(nursery: trio.Nursery) -> None:
    """Its pid may be somebody else's by now, started at another time."""
    of = registry()
    stranger = Stranger()
    tree = Tree([ChildSpec("guardian", of.service, backoff=EVEN)])
    with trio.fail_after(20):
        await tree.start(nursery)
        of.groups[stranger.pid] = (stranger.started, "/test")
        of._tell(f"+{stranger.pid} {stranger.started}\n")
        of.remove(stranger.pid)
        # Told again under a start time that is not its own, as for a pid used twice.
        of._tell(f"+{stranger.pid} {stranger.started - 1}\n")
        await gone(guard_lost(of))
        assert stranger.survived()
        await tree.stop()


# -- the next start ------------------------------------------------------------------


async def test_what_the_guardian_missed_the_next_start_finds_by_its_marker(
    appliance: Appliance,
) -> None:
    await kill_without_guardian(appliance)
    assert all(alive(pid) for pid in appliance.family)
    ended = await trio.to_thread.run_sync(sweep, appliance.of.instance, appliance.of.boot + 1, [])
    assert sorted(ended) == sorted((pid, "marked") for pid in appliance.family)
    for pid in appliance.family:
        await gone(pid)


async def test_and_by_pid_and_start_time_with_its_group(appliance: Appliance) -> None:
    """For programs that overwrite their environment."""
    await kill_without_guardian(appliance)
    pids = appliance.pids
    known = [(pids["leader"], pids["started"], "/job")]
    ended = await trio.to_thread.run_sync(sweep, "another instance", 5, known)
    assert sorted(ended) == sorted([(pids["leader"], "/job"), (pids["in"], "/job")])
    await gone(pids["leader"])
    await gone(pids["in"])
    assert alive(pids["out"])


async def test_a_process_without_marker_is_found_by_pid_and_start_time() -> None:
    ours = Stranger()
    known = [(ours.pid, ours.started, "/job")]
    assert await trio.to_thread.run_sync(sweep, "instance", 2, known) == [(ours.pid, "/job")]
    assert not ours.survived()


async def test_nobody_elses_process_is_touched() -> None:
    of = registry(boot=9)
    strangers = {
        "same pid, another start time": Stranger(),
        "no marker": Stranger(),
        "our marker of this boot": Stranger(of.marker),
        "another instance": Stranger(registry(boot=8).marker),
        "an instance that begins as ours": Stranger(f"{VARIABLE}={of.instance}0:8"),
        "another variable": Stranger(f"X{VARIABLE}={of.instance}:8"),
    }
    reused = strangers["same pid, another start time"]
    known = [(reused.pid, reused.started - 1, "/job"), (2**22 + 1, 1, "/gone")]
    assert await trio.to_thread.run_sync(sweep, of.instance, of.boot, known) == []
    assert {why for why, s in strangers.items() if not s.survived()} == set()


async def test_what_the_store_knows_of_processes_and_what_it_tells(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    with trio.fail_after(20):
        bench = await Bench(tmp_path).start(nursery)
        for pid in (11, 12):
            await bench.store.write(orphans.note, pid, 1000 + pid, 1, "/job", "sleep")
        # Noted twice is noted once; another start time is another process.
        await bench.store.write(orphans.note, 12, 1012, 1, "/job", "sleep")
        await bench.store.write(orphans.note, 12, 9999, 1, "/job", "sleep")
        await bench.store.write(orphans.drop, 11, 1011)
        assert await bench.store.read(orphans.noted) == [(12, 1012, "/job"), (12, 9999, "/job")]
        await bench.store.write(orphans.forget_all, [(12, "/job")])
        assert await bench.store.read(orphans.noted) == []
        (event,) = bench.published
        assert (event.type, event.subject) == ("process.orphan_ended", "system/processes")
        assert json.loads(bytes(event.data)) == {"pid": 12, "owner": "/job"}
        await bench.close()
