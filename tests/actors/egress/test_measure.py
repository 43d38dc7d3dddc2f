"""What tasks really take, measured of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from actors.egress.measure import Meter

# Holds 40 MiB, then works for as long as it is let, a line each 50 ms of its processor's time.
BUSY = """
import sys, time
held = bytearray(b"x") * (40 * 2**20)
while True:
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    print("worked", flush=True)
"""


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """In a group of its own."""
    found = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield found
    finally:
        found.kill()
        found.communicate()


def worked(busy: subprocess.Popen[bytes], times: int) -> None:
    assert busy.stdout is not None
    for _ in range(times):
        busy.stdout.readline()


def test_processor_memory_and_disk_of_each_task() -> None:
    meter = Meter()
    with process(BUSY) as busy, process("import time; time.sleep(60)") as idle:
        groups = {"busy": {busy.pid}, "idle": {idle.pid}}
        worked(busy, 1)
        began = time.monotonic()
        assert meter.measure(groups, {"busy": 1000, "idle": 0}, began) == {}
        worked(busy, 8)
        now = time.monotonic()
        found = meter.measure(groups, {"busy": 1000 + 2**20, "idle": 0}, now)
    assert set(found) == {"busy", "idle"}
    spent = found["busy"].cpu * (now - began)
    assert 0.3 <= spent <= 1.0
    assert 40 < found["busy"].memory_mb < 100
    assert found["busy"].disk_kb * (now - began) == pytest.approx(1024)
    assert found["idle"].cpu * (now - began) < 0.1
    assert found["idle"].disk_kb == 0


def test_what_was_not_there_before_is_measured_the_next_time() -> None:
    meter = Meter()
    with (
        process("import time; time.sleep(60)") as one,
        process("import time; time.sleep(60)") as two,
    ):
        assert meter.measure({"a": {one.pid}}, {"a": 0}, 1.0) == {}
        # Another process of the task: what it has used so far was not used since the last look.
        assert meter.measure({"a": {one.pid, two.pid}}, {"a": 0}, 2.0) == {}
        assert set(meter.measure({"a": {one.pid, two.pid}}, {"a": 0}, 3.0)) == {"a"}
        # One of them is over: the other counts.
        two.kill()
        two.wait()
        assert set(meter.measure({"a": {one.pid, two.pid}}, {"a": 0}, 4.0)) == {"a"}
        assert set(meter.measure({"a": {one.pid}, "b": {one.pid}}, {"a": 0, "b": 0}, 5.0)) == {"a"}


def test_a_part_that_begins_again_has_written_nothing_less() -> None:
    meter = Meter()
    own = {"a": {os.getpgrp()}}
    meter.measure(own, {"a": 5000}, 1.0)
    assert meter.measure(own, {"a": 100}, 2.0)["a"].disk_kb == 0


def test_a_task_without_processes_is_not_measured() -> None:
    meter = Meter()
    for now in (1.0, 2.0):
        assert meter.measure({"a": set()}, {"a": 0}, now) == {}
