"""A guardian that takes nothing any more is killed, and is no reason to wait."""

from __future__ import annotations

import os
import signal
import time

from tests.supervisor.procs import registry


def test_one_whose_pipe_is_full_is_killed() -> None:
    it = registry()
    process = it.begin_guard()
    try:
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        for number in range(20_000):
            it.groups[1 << 30] = (number, "/test")
            it.remove(1 << 30)
            if process.poll() is not None:
                break
        assert process.wait(5) == -signal.SIGKILL
        assert time.monotonic() - begun < 10
    finally:
        it.end_guard()


def test_one_that_does_not_take_its_farewell_is_killed() -> None:
    it = registry()
    process = it.begin_guard()
    os.kill(process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    it.end_guard()
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 5


def test_one_that_listens_goes_by_itself() -> None:
    it = registry()
    process = it.begin_guard()
    it.end_guard()
    assert process.returncode == 0
